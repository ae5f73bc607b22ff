"""Asks whether a captioner that prefers its captions to worse ones of its own is wrong less.

APASI (2025, arXiv 2509.11287) replaces sentences of a model's own captions by likely
hallucinations: of objects that often go with those that are named, made up without the image, late
in the caption; and trains the model to prefer what it first wrote. No other model and no labels are
needed. Here scenes are made, so that it is known what is there, and so are two captioners.

    python -m experiments.self_injection --config=configs/self_injection.py:small \\
        --workdir=runs/self_injection

The settings, presets and expected times are in configs/self_injection.py.
"""

from experiments.self_injection.studies import linear, llama
from experiments.word_models import require_counts, word_model
from jattn.tasks.captioned_scenes import VOCABULARY
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"linear": linear, "llama": llama}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    least = {"rounds": 1, "candidates": 1, "test": 1, "seeds": 1, "linear_seeds": 1}
    require_counts(config, least)
    for study in ("linear_dpo", "llama_dpo"):
        require_counts(config[study], {"pairs": 8, "steps": 1, "batch_size": 1})
    for field, value in (("rate", config.rate), *(("curriculum", x) for x in config.curriculum)):
        if not 0.125 < value < 1:
            raise UsageError(
                f"{field}: expected rates in (0.125, 1), of a sentence of six to eight, got {value}"
            )
    if len(config.curriculum) != config.rounds:
        raise UsageError(
            f"curriculum: expected rounds={config.rounds} rates, got {len(config.curriculum)}"
        )
    word_model(config, VOCABULARY)
    return run_studies(run, config, STUDIES)
