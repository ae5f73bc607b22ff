"""Launching: what would be submitted has the fields that are required; scripts are sound."""

import json
import math
import os
import shlex
import subprocess

import jsonschema
import pytest
import yaml

from experiments.launch import gce, gke, ssh
from experiments.launch.__main__ import main
from experiments.launch.request import Request
from jattn.training import UsageError

GKE = ("--target=gke", "--image=docker.pkg.dev/project/jattn/jattn:1")
GCE = ("--target=gce", "--zone=us-east5-a", "--install=git+https://example.org/jattn")
POD = ("--experiment=in_context_regression", "--config=in_context_regression:paper")
WHERE = ("--topology=v5e:16x16", "--workdir=gs://bucket/icl")

text = {"type": "string", "minLength": 1}
positive = {"type": "integer", "minimum": 1}


def having(**fields):
    """A schema of an object that must have these fields."""
    return {"type": "object", "required": list(fields), "properties": fields}


def each(schema):
    return {"type": "array", "minItems": 1, "items": schema}


# The required fields of jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1, and those that GKE asks of
# TPU slices.
POD_SPEC = having(
    restartPolicy={"enum": ["Never"]},
    nodeSelector={
        "type": "object",
        "required": [
            "cloud.google.com/gke-tpu-accelerator",
            "cloud.google.com/gke-tpu-topology",
        ],
        "additionalProperties": text,
    },
    containers=each(
        having(
            name=text,
            image=text,
            command=each(text),
            ports=each(having(containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
            resources=having(
                requests=having(**{"google.com/tpu": positive}),
                limits=having(**{"google.com/tpu": positive}),
            ),
        )
    ),
)
JOBSET = having(
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=having(
        name={"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"},
        annotations={"type": "object", "additionalProperties": text},
    ),
    spec=having(
        failurePolicy=having(
            maxRestarts={"type": "integer", "minimum": 0},
            rules=each(
                having(
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action={
                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
                    },
                    onJobFailureReasons=each(
                        {"enum": ["BackoffLimitExceeded", "PodFailurePolicy"]}
                    ),
                )
            ),
        ),
        replicatedJobs=each(
            having(
                name=text,
                replicas=positive,
                template=having(
                    spec=having(
                        parallelism=positive,
                        completions=positive,
                        backoffLimit={"const": 0},
                        podFailurePolicy=having(
                            rules=each(
                                having(
                                    action={"enum": ["FailJob", "Ignore", "Count", "FailIndex"]},
                                    onExitCodes=having(
                                        operator={"enum": ["In", "NotIn"]},
                                        values=each({"type": "integer"}),
                                    ),
                                )
                            )
                        ),
                        template=having(spec=POD_SPEC),
                    )
                ),
            )
        ),
    ),
)
# Of compute/v1 instanceTemplates.
TEMPLATE = having(
    name={"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"},
    properties=having(
        machineType=text,
        disks=each(having(boot={"const": True}, initializeParams=having(sourceImage=text))),
        networkInterfaces=each(having(network=text)),
        scheduling=having(
            provisioningModel={"enum": ["SPOT", "FLEX_START"]},
            instanceTerminationAction={"enum": ["DELETE", "STOP"]},
            onHostMaintenance={"const": "TERMINATE"},
            automaticRestart={"const": False},
        ),
        metadata=having(items=each(having(key=text, value=text))),
    ),
)


@pytest.fixture
def call(capsys):
    """`call(*flags) -> (status, standard output, standard error)`."""

    def run_main(*flags):
        with pytest.raises(SystemExit) as exited:
            main(flags)
        return exited.value.code, *capsys.readouterr()

    return run_main


def files_of(output):
    """The files that a dry run prints, by their names."""
    names = ("jobset.yaml", "template.json", "start.sh", "stop.sh")
    parts, name = {}, ""
    for line in output.splitlines(keepends=True):
        if line.startswith("# ") and line[2:].strip() in names:
            name = line[2:].strip()
            parts[name] = ""
        else:
            parts[name] += line
    return parts


def check_shell(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "-"], input=script, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module", autouse=True)
def tools_on_the_path():
    """shellcheck is beside the interpreter of the environment that the tests run in."""
    import sys

    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize("slices", [1, 3])
def test_gke_gets_a_jobset_with_a_job_a_slice_and_a_pod_a_host(call, spot, slices):
    flags = [f"--slices={slices}", *(["--spot"] if spot else [])]
    status, output, _ = call(*POD, *WHERE, *GKE, *flags, "--config.seed=3", "--dry-run")
    assert status == 0
    made = yaml.safe_load(files_of(output)["jobset.yaml"])
    jsonschema.validate(made, JOBSET)
    (job,) = made["spec"]["replicatedJobs"]
    assert job["replicas"] == slices
    assert job["template"]["spec"]["parallelism"] == 64  # 256 chips, 4 a host
    pod = job["template"]["spec"]["template"]["spec"]
    selector = pod["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert selector["cloud.google.com/gke-tpu-topology"] == "16x16"
    assert (selector.get("cloud.google.com/gke-spot") == "true") == spot
    assert ("tolerations" in pod) == spot
    assert ("hostNetwork" in pod) == (slices > 1)
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["command"] == [
        "python",
        "-m",
        "experiments.in_context_regression",
        "--config=in_context_regression:paper",
        "--config.seed=3",
        "--workdir=gs://bucket/icl",
        "--distributed",
    ]
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 100


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize("slices", [1, 2])
def test_compute_engine_gets_a_template_and_a_group_for_each_slice(call, spot, slices):
    flags = [f"--slices={slices}", "--topology=v6e:4x8", *(["--spot"] if spot else [])]
    status, output, _ = call(*POD, "--workdir=gs://bucket/icl", *GCE, *flags, "--dry-run")
    assert status == 0
    files = files_of(output)
    template = json.loads(files["template.json"])
    jsonschema.validate(template, TEMPLATE)
    properties = template["properties"]
    assert properties["machineType"] == "ct6e-standard-4t"
    assert properties["scheduling"]["provisioningModel"] == ("SPOT" if spot else "FLEX_START")
    (startup,) = properties["metadata"]["items"]
    for script in (files["start.sh"], files["stop.sh"], startup["value"]):
        check_shell(script)
    assert ("MEGASCALE_NUM_SLICES" in startup["value"]) == (slices > 1)
    assert "--workdir=gs://bucket/icl --distributed" in startup["value"]
    made = [
        shlex.split(line) for line in files["start.sh"].splitlines() if "managed create" in line
    ]
    assert [words[5] for words in made] == [f"in-context-regression-{i}" for i in range(slices)]
    assert all("--size=8" in words for words in made)
    assert ("--target-size-policy-mode=bulk" in files["start.sh"]) != spot
    assert "--accelerator-topology=4x8" in files["start.sh"]


def test_over_ssh_each_host_gets_its_number_and_is_started_again(tmp_path, monkeypatch):
    request = Request(
        "pavlovian", "pavlovian:small", "v5e:2x4", "/shared/run", ("--config.seed=1",), restarts=2
    )
    script = ssh.commands(request, ["user@one", "two"], "a folder")
    check_shell(script)
    log = tmp_path / "log"
    # A stand-in for ssh that runs what it is told here, and for python that is preempted once.
    (tmp_path / "ssh").write_text('#!/usr/bin/env bash\nexec bash -c "$2"\n')
    (tmp_path / "a folder" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "a folder" / ".venv" / "bin" / "python").write_text(
        f'#!/usr/bin/env bash\necho "$*" >> {log}\n'
        f'[ "$(grep -c -- "${{@: -1}}" {log})" -gt 1 ] || exit 143\n'
    )
    (tmp_path / "sleep").write_text("#!/usr/bin/env bash\n")
    for file in ("ssh", "sleep", "a folder/.venv/bin/python"):
        (tmp_path / file).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("attempt 0 ended with status 143; going on from the workdir") == 2
    lines = log.read_text().splitlines()
    assert len(lines) == 4
    start = (
        "-m experiments.pavlovian --config=pavlovian:small --config.seed=1 --workdir=/shared/run"
    )
    for index in (0, 1):
        joined = f"--coordinator_address=one:8476 --num_processes=2 --process_id={index}"
        assert lines.count(f"{start} --distributed {joined}") == 2


@pytest.mark.parametrize("status", [0, 2, 3, 4])
def test_what_would_end_so_again_is_not_started_again(status):
    request = Request("pavlovian", "pavlovian", "v5e:2x4", "gs://bucket/run")
    script = request.script().replace("python -m", f"bash -c 'exit {status}' -m")
    assert subprocess.run(["bash", "-c", script], timeout=5).returncode == status


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--experiment=pavlovia"], "no experiment 'pavlovia'; did you mean pavlovian?"),
        (["--config=pavlovian:huge"], "config: pavlovian"),
        (["--config.sed=1"], "--config.sed: the config has no such field"),
        (["--topology=v9:2x2"], "topology: expected a chip of v4, v5e, v5p, v6e, tpu7x and a grid"),
        (["--topology=v5e:4x4x4"], "topology: v5e has a grid of 2 numbers, as v5e:4x4"),
        (["--topology=v5e:1x2"], "topology: hosts have 4 chips of a v5e"),
        (["--workdir=s3://bucket/run"], "workdir: expected gs://BUCKET/RUN, or a folder that all"),
        (["--workdir="], "workdir: missing"),
        (["--slices=0"], "--slices: expected a whole number from 1 on, got '0'"),
        (["--name=Not_this"], "name: expected at most 39 small letters"),
        (["--image="], "image: missing; gke starts a container"),
        (["--target=gce"], "zone: missing"),
        (["--target=gce", "--zone=a-b", "--install=x"], "managed groups make slices of v5p and"),
        (["--target=ssh", "--hosts=one"], "hosts: 1 x v5e:4x4 has 4 hosts, 4 chips each; got 1"),
        (["--target=borg"], "--target: invalid choice: 'borg'"),
        (["--sices=2"], "unexpected argument '--sices=2'"),
    ],
)
def test_what_cannot_be_started_is_one_clear_line(call, flags, message):
    good = ["--experiment=pavlovian", "--topology=v5e:4x4", "--workdir=gs://bucket/run", *GKE]
    status, output, error = call(*good, *flags, "--dry-run")
    assert (status, output) == (2, "")
    assert error.startswith("launch: ")
    assert message in error
    assert error.count("\n") == 1


def test_without_the_tool_it_says_which_one_is_missing(call, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, error = call(*POD, *WHERE, *GKE)
    assert status == 2
    assert "--target=gke: needs kubectl, which is not on the PATH" in error


@pytest.mark.parametrize(
    "topology", ["v4:2x2x4", "v5e:2x4", "v5p:4x4x4", "v6e:16x16", "tpu7x:4x4x4"]
)
def test_hosts_are_counted_for_every_chip(topology):
    request = Request("pavlovian", "pavlovian", topology, "gs://bucket/run")
    chips = math.prod(int(n) for n in topology.split(":")[1].split("x"))
    assert request.hosts == chips // 4
    jsonschema.validate(gke.jobset(request, "image"), JOBSET)
    assert gce.Machines("a-b", "x").hours == 168


def test_a_request_is_checked_when_it_is_made():
    with pytest.raises(UsageError, match="experiment"):
        Request("nothing", "pavlovian", "v5e:4x4", "gs://bucket/run")
