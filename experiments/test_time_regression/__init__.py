"""Layers as regression at test time (Local Linear Attention, arXiv 2510.01450).

    python -m experiments.test_time_regression --config=configs/test_time_regression.py:small \\
        --workdir=runs/test_time_regression

The settings, presets and expected times are in configs/test_time_regression.py.
"""

from experiments.test_time_regression import identities, interpolation, kernels, segments, stream
from jattn.tasks.piecewise_regression import piecewise_regression, switching_stream
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "identities": identities.identities,
    "kernels": kernels.kernels,
    "plane": kernels.plane,
    "segments": segments.segments,
    "stream": stream.stream,
    "interpolation": interpolation.interpolation,
}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if list(config.segments) != sorted(set(config.segments)) or not {1, 2} <= set(config.segments):
        raise UsageError(
            f"segments: expected rising numbers with 1 and 2, got {tuple(config.segments)}"
        )
    if config.seeds < 1:
        raise UsageError(f"seeds: expected at least 1, got {config.seeds}")
    for field in ("scales", "ridges", "penalties", "rates"):
        if not config[field] or min(config[field]) <= 0:
            raise UsageError(f"{field}: expected positive numbers, got {tuple(config[field])}")
    for field in ("kernels", "plane"):
        pairs = tuple(config[field].pairs)
        if len(pairs) < 2 or min(pairs) < 2:
            raise UsageError(f"{field}.pairs: expected two numbers above 1, got {pairs}")
    if len(config.stream.spreads) != 2 or not config.stream.rates:
        raise UsageError(
            "stream: expected two spreads (apart, overlapping) and a rate, got "
            f"{tuple(config.stream.spreads)} and {tuple(config.stream.rates)}"
        )
    ridges = config.interpolation.ridges
    if sum(r <= 1e-2 for r in ridges) < 2 or sum(r >= 1e2 for r in ridges) < 2:
        raise UsageError(
            "interpolation.ridges: expected two of 0.01 or less and two of 100 or more, got "
            f"{tuple(ridges)}"
        )
    try:
        piecewise_regression(**config.task, most_segments=max(config.segments))
    except ValueError as error:
        raise UsageError(f"task.{error}") from None
    try:
        switching_stream(config.task.dim, config.stream.length, config.stream.segments)
    except ValueError as error:
        raise UsageError(f"stream.{error}") from None


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
