"""Asks what directed connectivity and homogeneity of texts can tell, where the truth is known.

Your brain on ChatGPT (2025, arXiv 2506.08872, a preprint with a formal comment, arXiv 2601.00856)
compares groups by the direct directed transfer function between electrodes, and by how alike their
texts are. Here series come from networks whose links were put in, and texts from a writer whose
temperature is set, so each measure can be held against what is true.

    python -m experiments.directed_connectivity --config=configs/directed_connectivity.py:small \\
        --workdir=runs/directed_connectivity

The settings, presets and expected times are in configs/directed_connectivity.py.
"""

from experiments.directed_connectivity.groups import groups
from experiments.directed_connectivity.network import network
from experiments.directed_connectivity.text import text
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"network": network, "groups": groups, "text": text}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    order = config.network.order
    for field, length in (("network", config.network.length), ("groups", config.groups.length)):
        if length <= 6 * order + 60:
            raise UsageError(f"{field}.length: expected more than {6 * order + 60}, got {length}")
    if not 0 <= config.groups.weakened <= 1:
        raise UsageError(f"groups.weakened: expected 0 to 1, got {config.groups.weakened}")
    temperatures = tuple(config.text.temperatures)
    if list(temperatures) != sorted(set(temperatures)) or len(temperatures) < 2:
        raise UsageError(f"text.temperatures: expected two rising numbers, got {temperatures}")
    if config.text.writer not in ("words", "smollm2"):
        raise UsageError(f"text.writer: expected one of words, smollm2, got {config.text.writer!r}")
    if config.text.documents < 2:
        raise UsageError(f"text.documents: expected at least 2, got {config.text.documents}")


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
