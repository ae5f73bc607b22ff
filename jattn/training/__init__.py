"""Training and running experiments: fits, parallelism, checkpoints, metrics, claims, reports.

An experiment is a function `run_experiment(config, run) -> list[Claim]`; `cli.main` gives it flags,
a workdir, and an exit status. `fit` trains many seeds in one program on any number of devices.
"""

from jattn.training import cli
from jattn.training.claims import Claim
from jattn.training.errors import Interrupted, NonFiniteError, UsageError
from jattn.training.fit import FitResult, fit
from jattn.training.parallel import Parallel, map_over_devices, parallel_config
from jattn.training.report import write_gallery
from jattn.training.run import Run
from jattn.training.sweep import sweep

__all__ = [
    "Claim",
    "FitResult",
    "Interrupted",
    "NonFiniteError",
    "Parallel",
    "Run",
    "UsageError",
    "cli",
    "fit",
    "map_over_devices",
    "parallel_config",
    "sweep",
    "write_gallery",
]
