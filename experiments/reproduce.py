"""Runs the registered experiments and builds one gallery of their claims and figures.

    python -m experiments.reproduce [--only=NAME,...] [--preset=small] [--workdir=runs]

Each experiment runs in its own process and in its own folder under the workdir; started again, it
goes on where it stopped. The gallery is WORKDIR/index.html. Exit status: 0 if all claims of all
experiments hold, 3 if all finished but a claim does not, else that of the first that failed.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from jattn.training import write_gallery

# Experiments whose presets `small` and `full` together reproduce their papers.
REGISTERED = (
    "in_context_regression",
    "scan_and_snap",
    "random_feature_attention",
    "pavlovian",
    "dynamical_systems",
    "test_time_regression",
    "softmax_as_rnn",
    "attention_methods",
    "bakeoff",
    "associative_recall",
    "memory_models",
    "hedgehog_conversion",
)

ONLY = flags.DEFINE_list("only", None, "Experiments to run, separated by commas; default: all.")
PRESET = flags.DEFINE_string("preset", "small", "Preset of each experiment's config.")
WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder for the runs and the gallery.")

ALL_HOLD, CLAIM_FAILS, BAD_INPUT = 0, 3, 2


def reproduce(names: Sequence[str], preset: str, workdir: Path) -> int:
    """Runs experiments one after the other, then writes the gallery.

    Args:
        names: experiments, of REGISTERED.
        preset: preset of each one's config.
        workdir: folder of the gallery; the runs are its subfolders `NAME` (`NAME-PRESET` for a
            preset other than small).

    Returns:
        The exit status.
    """
    statuses, runs = [], {}
    for name in names:
        folder = workdir / (name if preset == "small" else f"{name}-{preset}")
        command = [
            sys.executable,
            "-m",
            f"experiments.{name}",
            f"--config=configs/{name}.py:{preset}",
            f"--workdir={folder}",
        ]
        print(f"== {name} ({preset})", flush=True)
        statuses.append(subprocess.run(command, check=False).returncode)
        if (folder / "claims.json").exists():
            runs[name] = folder
        elif statuses[-1] == ALL_HOLD:  # it was asked to stop, and said how to go on
            break
    if runs:
        write_gallery(workdir / "index.html", runs)
        print(f"gallery: {workdir / 'index.html'}")
    broken = [status for status in statuses if status not in (ALL_HOLD, CLAIM_FAILS)]
    return broken[0] if broken else max(statuses, default=ALL_HOLD)


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring."""
    names = ONLY.value or list(REGISTERED)
    unknown = [name for name in names if name not in REGISTERED]
    if unknown or argv[1:]:
        wrong = f"--only: no experiment {unknown[0]!r}" if unknown else f"argument {argv[1]!r}"
        print(f"reproduce: {wrong}; there are {', '.join(REGISTERED)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    sys.exit(reproduce(names, PRESET.value, Path(WORKDIR.value)))


if __name__ == "__main__":
    app.run(main)
