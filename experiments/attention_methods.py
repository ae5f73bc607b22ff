"""Methods of attention, each on a small trained model: does it do what it is for?

Every part trains models of a toy task in which the method's promise can be counted, and states it
as claims.

    python -m experiments.attention_methods --config=configs/attention_methods.py:small \
        --workdir=runs/attention_methods

The settings, presets and expected times are in configs/attention_methods.py.
"""

from collections.abc import Callable

from configs.attention_methods import PARTS
from experiments.methods.order import order
from experiments.methods.pattern_swap import pattern_swap
from experiments.methods.segments import segments
from experiments.methods.transition import transition
from experiments.methods.trees import trees
from jattn.training import Claim, Run, UsageError, cli

# A part is a function of a run and its config, in experiments/methods.
RUN: dict[str, Callable[..., list[Claim]]] = {
    "order": order,
    "pattern_swap": pattern_swap,
    "trees": trees,
    "segments": segments,
    "transition": transition,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    return [claim for name in PARTS if name in chosen for claim in RUN[name](run, config)]


if __name__ == "__main__":
    cli.main(run_experiment, name="attention_methods")
