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

from configs.pavlovian import PARTS
from experiments.conditioning import capacity, errors, phenomena, rules
from jattn.training import Claim, Run, UsageError, cli

RUN = {
    "identity": (rules.identity,),
    "capacity": (capacity.interference, capacity.capacity),
    "errors": (errors.failures, errors.chains),
    "rules": (rules.forgetting, rules.rebinding, rules.limits),
    "phenomena": (phenomena.protocols,),
    "softmax": (phenomena.softmax,),
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    if not 0 < config.alpha < 1:
        raise UsageError(f"alpha: expected between 0 and 1, got {config.alpha}")
    if not 0 < config.gamma < 1:
        raise UsageError(f"gamma: expected between 0 and 1, got {config.gamma}")
    return [
        claim
        for name in PARTS
        if name in chosen
        for function in RUN[name]
        for claim in function(run, config)
    ]


if __name__ == "__main__":
    cli.main(run_experiment, name="pavlovian")
