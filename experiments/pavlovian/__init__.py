"""Reproduces "Understanding transformers through the lens of Pavlovian conditioning".

Attention as conditioning (2025, arXiv 2508.08289): keys are conditioned stimuli (CS), values
unconditioned stimuli (US), queries test stimuli, and a head's memory S = sum k^T v is Hebbian. How
much the memory holds, how its errors travel through heads and layers, what other learning rules
change, and which phenomena of animal learning follow.

    CS   y -> k = f(y W_K) --+
                             +--> write S += alpha k^T v --> S --+
    US   z -> v = g(z W_V) --+                                   +--> response r = q S
    test x -> q = f(x W_Q) --------------------------------------+

    python -m experiments.pavlovian --config=configs/pavlovian.py:small --workdir=runs/pavlovian

The settings, presets and expected times are in configs/pavlovian.py.
"""

from experiments.pavlovian import capacity, errors, phenomena, rules
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "identity": rules.identity,
    "capacity": capacity.capacity,
    "errors": errors.errors_over_layers,
    "rules": rules.rules,
    "phenomena": phenomena.protocols,
    "softmax": phenomena.softmax,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    for field in ("alpha", "gamma"):
        if not 0 < config[field] < 1:
            raise UsageError(f"{field}: expected between 0 and 1, got {config[field]}")
    return run_studies(run, config, STUDIES)
