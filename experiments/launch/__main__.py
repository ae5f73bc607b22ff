"""The command line of `experiments.launch`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from experiments import launch
from experiments.flags import Parser, count, words
from experiments.launch import gce, gke, ssh
from experiments.launch.request import Request
from jattn.training import UsageError

TOOLS = {"gke": "kubectl", "gce": "gcloud", "ssh": "ssh"}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; see the package's docstring."""
    parser = _parser()
    chosen, overrides = parser.parse_known_args(argv)
    unknown = [flag for flag in overrides if not flag.lstrip("-").startswith("config.")]
    if unknown:
        parser.error(f"unexpected argument {unknown[0]!r}")
    try:
        request = Request(
            chosen.experiment,
            chosen.config or chosen.experiment,
            chosen.topology,
            chosen.workdir,
            tuple(overrides),
            chosen.slices,
            chosen.spot,
            chosen.restarts,
            chosen.name,
        )
        files = _files(request, chosen)
    except UsageError as error:
        parser.error(" ".join(str(error).split()))
    if chosen.dry_run:
        for name, text in files.items():
            print(f"# {name}\n{text}", end="")
        sys.exit(0)
    tool = TOOLS[chosen.target]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        command = ["bash", "start.sh"]
        if chosen.target == "gke":
            command = ["kubectl", "apply", "-f", "jobset.yaml"]
        try:
            subprocess.run([tool, "--help"], capture_output=True, check=False)
        except FileNotFoundError:
            parser.error(f"--target={chosen.target}: needs {tool}, which is not on the PATH")
        sys.exit(subprocess.run(command, cwd=folder, env=os.environ, check=False).returncode)


def _parser() -> Parser:
    parser = Parser("launch", launch.__doc__)
    add = parser.add_argument
    add("--experiment", required=True, help="its name")
    add("--config", default="", help="FILE or NAME[:PRESET]; by default that of the experiment")
    add("--topology", required=True, help="chip and grid of a slice: v5e:16x16, v5p:2x2x4")
    add("--workdir", required=True, help="gs://BUCKET/RUN, or a folder that all hosts share")
    add("--target", required=True, choices=tuple(TOOLS), help="what starts it")
    add("--slices", type=count, default=1, help="how many slices, joined over the network")
    add("--spot", action="store_true", help="machines that may be taken away, for less")
    add("--restarts", type=count, default=100, help="how often it is started again at most")
    add("--name", default="", help="of what is made; by default the experiment's")
    add("--image", default="", help="gke: a container with jattn and its extras tpu and gcs")
    add("--service_account", default="default", help="gke: of Kubernetes, may write to the workdir")
    add("--zone", default="", help="gce: where, e.g. us-west4-a")
    add("--install", default="", help="gce: what pip installs: a wheel's URL, or git+https://...")
    add("--hours", type=count, default=168, help="gce: after which flex-start takes machines back")
    add("--hosts", type=words, default=[], help="ssh: hosts, separated by commas")
    add("--folder", default="jattn", help="ssh: of the checkout with its .venv, on each host")
    add("--dry-run", action="store_true", dest="dry_run", help="print it, and do nothing")
    return parser


def _files(request: Request, chosen) -> dict[str, str]:
    """What starts the run, by the names of the files."""
    if chosen.target == "gke":
        if not chosen.image:
            raise UsageError("image: missing; gke starts a container: --image=REGISTRY/jattn:TAG")
        made = gke.jobset(request, chosen.image, chosen.service_account)
        return {"jobset.yaml": yaml.safe_dump(made, sort_keys=False)}
    if chosen.target == "ssh":
        return {"start.sh": ssh.commands(request, chosen.hosts, chosen.folder)}
    for flag in ("zone", "install"):
        if not getattr(chosen, flag):
            raise UsageError(f"{flag}: missing; gce needs it, see --help")
    if chosen.hours > 168:
        raise UsageError(f"hours: flex-start lends for at most 168, got {chosen.hours}")
    machines = gce.Machines(chosen.zone, chosen.install, chosen.hours)
    return {
        "template.json": gce.as_json(request, machines),
        "start.sh": gce.commands(request, machines, "template.json"),
        "stop.sh": "#!/usr/bin/env bash\n" + gce.clean_up(request, machines),
    }


if __name__ == "__main__":
    main()
