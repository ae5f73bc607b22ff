"""Methods of attention, each on a small trained model: does it do what it is for?

Every study trains models of a toy task in which the method's promise can be counted, and states it
as claims.

    python -m experiments.attention_methods --config=configs/attention_methods.py:small \
        --workdir=runs/attention_methods

The settings, presets and expected times are in configs/attention_methods.py.
"""

from experiments.attention_methods.order import order
from experiments.attention_methods.pattern_swap import pattern_swap
from experiments.attention_methods.segments import segments
from experiments.attention_methods.transition import transition
from experiments.attention_methods.trees import trees
from jattn.training import Claim, Run, run_studies

STUDIES = {
    "order": order,
    "pattern_swap": pattern_swap,
    "trees": trees,
    "segments": segments,
    "transition": transition,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
