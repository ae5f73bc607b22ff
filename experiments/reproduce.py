"""Runs the registered experiments and builds one gallery of their claims and figures.

    python -m experiments.reproduce [--only=NAME,...] [--preset=small] [--workdir=runs]
    python -m experiments.reproduce --verify [--only=NAME,...]
    python -m experiments.reproduce --export=codecheck|ro-crate [--only=NAME,...]

Each experiment runs in its own process and in its own folder under the workdir; started again, it
goes on where it stopped. The gallery is WORKDIR/index.html. Exit status: 0 if all claims of all
experiments hold, 3 if all finished but a claim does not, else that of the first that failed;
130 or 143 if stopped by SIGINT (Ctrl-C) or SIGTERM, which the experiment is told, so that it saves.

--verify runs each once more with other seeds, with a longer horizon, and with one size changed, in
WORKDIR/verify, and prints each verdict that changed; exit status 3 if one went from yes to no, or
back, without its interval saying so. --export runs nothing: it writes the manifest of the finished
runs in the workdir, codecheck.yml or ro-crate-metadata.json.
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from experiments import manifests, verification
from experiments.flags import Parser, some_of
from jattn.pretrained import smollm2
from jattn.training import UsageError, write_gallery
from jattn.training.configs import load_module
from jattn.training.files import write_atomically
from jattn.training.gallery import read_claims
from jattn.training.stores import Folder, folder_of, told

# Experiments whose presets `small` and `full` together reproduce their papers.
REGISTERED = (
    "in_context_regression",
    "scan_and_snap",
    "random_feature_attention",
    "pavlovian",
    "position_bias",
    "grokking_regimes",
    "dynamical_systems",
    "test_time_regression",
    "softmax_as_rnn",
    "attention_methods",
    "bakeoff",
    "attention_sinks",
    "sink_emergence",
    "curvature",
    "key_value_heads",
    "longer_sequences",
    "language_model_steering",
    "language_model_faithfulness",
    "language_model_training",
    "minimal_transformer",
    "associative_recall",
    "memory_models",
    "hedgehog_conversion",
    "deconstructed_attention",
    "step_sizes",
    "affine_attention",
    "hierarchical_text",
    "factor_graph",
    "sparse_attention",
    "directed_connectivity",
    "agnosia",
    "attention_states",
    "mental_simulation",
    "self_contradiction",
    "self_specialization",
    "self_injection",
    "judged_search",
    "world_model",
    "image_mixers",
    "attention_gates",
    "attentive_probing",
    "pointer_networks",
    "brain_readout",
    "object_binding",
    "physiological_video",
    "language_model_sinks",
    "language_model_heads",
    "language_model_circuits",
)

# Those about a trained model, which `make lm` installs.
TRAINED = frozenset(
    ["language_model_steering", "language_model_faithfulness", "language_model_sinks",
     "language_model_heads", "language_model_circuits"]
)  # fmt: skip

ALL_HOLD, CLAIM_FAILS = 0, 3
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def reproduce(names: Sequence[str], preset: str, workdir: Folder) -> int:
    """Runs experiments one after the other, then writes the gallery.

    Args:
        names: experiments, of REGISTERED.
        preset: preset of each one's config.
        workdir: folder of the gallery, local or in a store; the runs are its subfolders `NAME`
            (`NAME-PRESET` for a preset other than small).

    Returns:
        The exit status.
    """
    statuses, runs = [], {}
    with _passing_on() as passed_on:
        for name in names:
            folder = folder_for(workdir, name, preset)
            print(f"== {name} ({preset})", flush=True)
            statuses.append(passed_on.run(command_of(name, preset, folder)))
            if (folder / "claims.json").exists():
                runs[name] = folder
            if passed_on.number or statuses[-1] in STOPPED:  # it has said how to go on
                break
    if runs:
        write_gallery(workdir / "index.html", runs)
        print(f"gallery: {workdir / 'index.html'}")
    if passed_on.number:
        return 128 + passed_on.number
    broken = [status for status in statuses if status not in (ALL_HOLD, CLAIM_FAILS)]
    return broken[0] if broken else max(statuses, default=ALL_HOLD)


def verify(names: Sequence[str], preset: str, workdir: Folder) -> int:
    """Runs experiments and their variants, and prints the verdicts that changed.

    Args:
        names: experiments, of REGISTERED.
        preset: preset of each one's config.
        workdir: folder of the runs; variants are in `verify/NAME-VARIANT` of it, and what changed
            in `verify/changes.json`.

    Returns:
        The exit status: 3 if a verdict flipped without its interval saying so.
    """
    found, compared = [], 0
    with _passing_on() as passed_on:
        for name in names:
            folders = {"": folder_for(workdir, name, preset)} | {
                variant: folder_for(workdir / "verify", f"{name}-{variant}", preset)
                for variant in verification.VARIANTS
            }
            for variant, folder in folders.items():
                print(f"== {name} ({preset}{', other ' if variant else ''}{variant})", flush=True)
                changed = verification.fields(name, preset, variant) if variant else {}
                status = passed_on.run(command_of(name, preset, folder, changed))
                if passed_on.number:
                    return 128 + passed_on.number
                if status not in (ALL_HOLD, CLAIM_FAILS):
                    return status
            before = read_claims(folders.pop(""))
            for variant, folder in folders.items():
                after = read_claims(folder)
                found += verification.changes(name, variant, before, after)
                compared += len({c["id"] for c in before} & {c["id"] for c in after})
    verification.print_changes(found, compared)
    text = json.dumps([change._asdict() for change in found], indent=2) + "\n"
    write_atomically(workdir / "verify" / "changes.json", text.encode())
    return ALL_HOLD if all(change.said for change in found) else CLAIM_FAILS


def folder_for(workdir: Folder, name: str, preset: str) -> Folder:
    """Where an experiment runs."""
    return workdir / (name if preset == "small" else f"{name}-{preset}")


def command_of(
    name: str, preset: str, folder: Folder, fields: Mapping[str, Any] | None = None
) -> list[str]:
    """The command line of an experiment, with other values of some fields."""
    return [
        sys.executable,
        "-m",
        f"experiments.{name}",
        f"--config={name}:{preset}",
        f"--workdir={folder}",
        *(f"--config.{field}={value}" for field, value in (fields or {}).items()),
    ]


class _PassingOn:
    """Runs processes, and passes on to them the signals that ask this one to stop."""

    def __init__(self):
        self.number = 0  # of the signal, once there was one
        self._process: subprocess.Popen | None = None

    def run(self, command: Sequence[str]) -> int:
        """Runs a command to its end; its exit status, 128 + n if signal n ended it."""
        if self.number:
            return 128 + self.number
        # In a group of its own, it hears of Ctrl-C once: from here.
        self._process = subprocess.Popen(command, process_group=0)
        status = self._process.wait()
        self._process = None
        return status if status >= 0 else 128 - status

    def ask(self, number: int, _: object) -> None:
        """The handler of a signal."""
        self.number = number
        name = signal.Signals(number).name
        print(f"reproduce: {name}: waiting for the experiment to save", file=sys.stderr, flush=True)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


@contextlib.contextmanager
def _passing_on() -> Iterator[_PassingOn]:
    passed_on = _PassingOn()
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, passed_on.ask) for kind in kinds}
    try:
        yield passed_on
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _export(form: str, names: Sequence[str], preset: str, workdir: Folder) -> int:
    folders = {name: folder_for(workdir, name, preset) for name in names}
    runs = {name: f for name, f in folders.items() if (f / "claims.json").exists()}
    if not runs:
        raise UsageError(f"--export: expected finished runs of preset {preset}, none in {workdir}")
    print(f"manifest: {manifests.export(form, workdir, runs)}, of {len(runs)} runs")
    return ALL_HOLD


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; see the module's docstring."""
    text = f"{__doc__}\nExperiments: {', '.join(REGISTERED)}."
    parser = Parser("reproduce", text)
    parser.add_argument(
        "--only",
        type=some_of("experiment", REGISTERED),
        help="experiments, separated by commas; default: all",
    )
    parser.add_argument(
        "--preset", default="small", help="of each experiment: small, full or paper"
    )
    parser.add_argument("--workdir", default="runs", help="folder of the runs and the gallery")
    parser.add_argument(
        "--verify", action="store_true", help="other seeds, horizon and size: which verdicts change"
    )
    parser.add_argument(
        "--export", choices=manifests.FORMATS, help="write the manifest of what has run"
    )
    chosen = parser.parse_args(argv)
    left_out = ()
    if chosen.only is None:
        left_out = () if smollm2.installed() else tuple(n for n in REGISTERED if n in TRAINED)
        chosen.only = [name for name in REGISTERED if name not in left_out]
    for name in chosen.only:
        presets = load_module(name).PRESETS
        if chosen.preset not in presets:
            parser.error(
                f"--preset: expected one of {', '.join(presets)} for {name}, got {chosen.preset!r}"
            )
    if not chosen.workdir:
        parser.error("--workdir: expected a folder, got none")
    if chosen.export and chosen.verify:
        parser.error("--export: expected no --verify beside it; it writes about what has run")
    if left_out and not chosen.export:
        print(f"left out without the trained model (make lm): {', '.join(left_out)}")
    try:
        workdir = folder_of(chosen.workdir)
        with told(workdir):
            if chosen.export:
                status = _export(chosen.export, chosen.only, chosen.preset, workdir)
            else:
                work = verify if chosen.verify else reproduce
                status = work(chosen.only, chosen.preset, workdir)
    except UsageError as error:
        parser.error(str(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
