"""Training and running experiments: fits, parallelism, checkpoints, metrics, claims, reports.

An experiment is a function `run_experiment(config, run) -> list[Claim]`; `cli.main` gives it flags,
a workdir, and an exit status, and `run_studies` runs those of its studies that were chosen. `fit`
trains many seeds in one program on any number of devices.
"""

from jattn.training import cli
from jattn.training.claims import Claim, Paper
from jattn.training.errors import Interrupted, NonFiniteError, UsageError
from jattn.training.fast_weights import fast_weights_loss
from jattn.training.fit import FitResult, fit
from jattn.training.gallery import write_gallery
from jattn.training.parallel import Parallel, map_over_devices, parallel_config
from jattn.training.run import Run
from jattn.training.studies import run_studies
from jattn.training.sweep import sweep

__all__ = [
    "Claim",
    "FitResult",
    "Interrupted",
    "NonFiniteError",
    "Paper",
    "Parallel",
    "Run",
    "UsageError",
    "cli",
    "fast_weights_loss",
    "fit",
    "map_over_devices",
    "parallel_config",
    "run_studies",
    "sweep",
    "write_gallery",
]
