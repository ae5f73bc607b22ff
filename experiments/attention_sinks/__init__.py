"""Asks whether a gate behind attention does away with the sink on the first token.

Gated attention for large language models (2025, arXiv 2505.06708): where heads have nothing to do
softmax must put its weight somewhere, and puts it on the first token; a gate can close instead.
Two layers of two heads share the work, and their sink is weak; a layer of one head, which must both
copy and rest, has a strong one.

    python -m experiments.attention_sinks --config=configs/attention_sinks.py:small \\
        --workdir=runs/attention_sinks

The settings, presets and expected times are in configs/attention_sinks.py.
"""

from experiments.attention_sinks.gates import gates
from experiments.attention_sinks.one_head import one_head
from jattn.training import Claim, Run, run_studies

STUDIES = {"gates": gates, "one_head": one_head}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
