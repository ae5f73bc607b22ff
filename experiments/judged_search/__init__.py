"""Asks what an agent that judges what it finds gains, and how it can be paid for judging too much.

ReSeek (2025, arXiv 2510.00568) has a search agent judge every observation, and answer only behind a
yes; judgements are paid beside the answer, by whether what was found is of use. Here an agent of a
few numbers shows what the rewards ask for, and a small Llama searches made worlds, a new one for
every question, by a tool inside the compiled program. A trained language model is asked to judge.

    python -m experiments.judged_search --config=configs/judged_search.py:small \\
        --workdir=runs/judged_search

The settings, presets and expected times are in configs/judged_search.py.
"""

from experiments.judged_search.judges import judges
from experiments.judged_search.study import agents
from experiments.judged_search.tabular import tabular
from experiments.word_models import require_counts, word_model
from jattn.tasks.fictional_search import VOCABULARY
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"tabular": tabular, "agents": agents, "judges": judges}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    least = {"turns": 1, "questions": 1, "updates": 2, "test": 2, "tabular_seeds": 1, "seeds": 1}
    require_counts(config, least | {"observations": 2, "rank": 1, "adapter_steps": 1})
    if config.group < 2:
        raise UsageError(f"group: expected at least 2 answers to each question, got {config.group}")
    word_model(config, VOCABULARY)
    return run_studies(run, config, STUDIES)
