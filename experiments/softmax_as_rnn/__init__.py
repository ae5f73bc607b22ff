"""Takes softmax attention apart (Mongaras & Larson 2025, arXiv 2507.23632).

How many orders of the exponential, each of them a recurrent network, it takes to be softmax; that
the denominator is a norm; and which parts a trained model misses.

    python -m experiments.softmax_as_rnn --config=configs/softmax_as_rnn.py:small \\
        --workdir=runs/softmax_as_rnn

The settings, presets and expected times are in configs/softmax_as_rnn.py.
"""

from experiments.softmax_as_rnn import ablations, orders
from jattn.training import Claim, Run, run_studies

STUDIES = {"orders": orders.orders, "ablations": ablations.ablations}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    orders.check(config)
    ablations.check(config)
    return run_studies(run, config, STUDIES)
