"""Takes softmax attention apart (Mongaras & Larson 2025, arXiv 2507.23632).

How many orders of the exponential, each of them a recurrent network, it takes to be softmax; that
the denominator is a norm; and which parts a trained model misses.

    python -m experiments.softmax_as_rnn --config=configs/softmax_as_rnn.py:small \\
        --workdir=runs/softmax_as_rnn

The settings, presets and expected times are in configs/softmax_as_rnn.py.
"""

from configs.softmax_as_rnn import PARTS
from experiments.softmax_parts import ablations, orders
from jattn.training import Claim, Run, UsageError, cli

RUN = {"orders": orders.orders, "ablations": ablations.ablations}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen parts and returns their claims."""
    chosen = PARTS if config.part == "all" else tuple(config.part.split(","))
    for name in chosen:
        if name not in PARTS:
            raise UsageError(f"part: expected any of {', '.join(PARTS)} or all, got {name!r}")
    orders.check(config)
    ablations.check(config)
    return [claim for name in PARTS if name in chosen for claim in RUN[name](run, config)]


if __name__ == "__main__":
    cli.main(run_experiment, name="softmax_as_rnn")
