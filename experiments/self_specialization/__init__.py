"""Asks whether a model can make itself an expert of a domain, from a few examples of it.

Self-specialization (2024, arXiv 2310.00160) has a model write instructions of a domain from a few
seeds, answer them with the seeds (and documents) in view, and learn to answer them without. Here a
small model has learned facts of four domains, of which some stand in documents only, in four styles
of answers, of which one is wanted. Study `python` does it with a trained language model, about
Python's standard library.

    python -m experiments.self_specialization --config=configs/self_specialization.py:small \\
        --workdir=runs/self_specialization

The settings, presets and expected times are in configs/self_specialization.py.
"""

from experiments.self_specialization.python_expert import python
from experiments.self_specialization.study import domains
from experiments.word_models import require_counts
from jattn.tasks.domain_facts import DOMAINS, STYLES
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"domains": domains, "python": python}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    least = {"examples": 6, "instructions": 8, "test_size": 8, "steps": 1, "tuning_steps": 1}
    require_counts(config, least | {"rank": 1, "large_rank": 1, "domain": 0, "style": 0})
    least = {"examples": 6, "instructions": 8, "questions": 2, "steps": 1, "batch_size": 1}
    require_counts(config.python, least | {"rank": 1, "tokens": 16})
    if not 0 <= config.covered <= 1:
        raise UsageError(f"covered: expected a number in [0, 1], got {config.covered}")
    for field, bound in (("domain", DOMAINS), ("style", STYLES)):
        if config[field] >= bound:
            raise UsageError(f"{field}: expected 0 to {bound - 1}, got {config[field]}")
    return run_studies(run, config, STUDIES)
