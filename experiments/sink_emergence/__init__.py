"""Reproduces orders of "When attention sink emerges in language models" (2024, arXiv 2410.10781).

Which heads put their weight on the first token, and when: with softmax and other operations, biases
beside keys and values, positions, windows, prefixes, weight decay, learning rate, fixed and random
first tokens, little data. All of these are arms of one program, on bigrams with triggers that
repeat, and some on text; a trained model's sinks stand beside them, if it is installed.

    python -m experiments.sink_emergence --config=configs/sink_emergence.py:small \\
        --workdir=runs/sink_emergence

The settings, presets and expected times are in configs/sink_emergence.py.
"""

from experiments.sink_emergence.emergence import backcopy, text
from experiments.sink_emergence.trained_model import trained_model
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"backcopy": backcopy, "text": text, "trained_model": trained_model}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if config.dim % (2 * config.heads):
        raise UsageError(
            f"heads: expected dim={config.dim} to be an even multiple of it, got {config.heads}"
        )
    if config.length < 8:
        raise UsageError(f"length: expected at least 8 tokens, got {config.length}")
    if len(config.decays) != 3 or sorted(config.decays) != list(config.decays):
        raise UsageError(f"decays: expected three, rising, got {config.decays}")
    if not config.rates or max(config.rates) >= 1:
        raise UsageError(f"rates: expected factors below 1, got {config.rates}")
    for field in ("window", "prefix"):
        if not 0 < config[field] < config.length:
            raise UsageError(
                f"{field}: expected 1 to {config.length - 1} tokens, got {config[field]}"
            )


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
