"""Asks how well states of attention can be told from what somebody does at a screen.

AttentionGuard (2026, arXiv 2602.07865) tells four states from windows of clicks, scrolls and idle
time by a random forest, and adapts an interface to them. Here the stream comes from a semi-Markov
world whose exact filter is known: the ceiling of everything that is causal. Classifiers of one
window and of several, attention, and the policy that keeps an interface from flickering are held
against it. The run ends in a page, `attention_states.html`, which shows a stream, the belief, and
what the interface does.

    python -m experiments.attention_states --config=configs/attention_states.py:small \\
        --workdir=runs/attention_states

The settings, presets and expected times are in configs/attention_states.py.
"""

from experiments.attention_states.classifiers import learned
from experiments.attention_states.policy import policy
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"policy": policy, "learned": learned}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if config.dim % config.heads:
        raise UsageError(f"heads: expected a divisor of dim={config.dim}, got {config.heads}")
    if config.windows < 40:
        raise UsageError(f"windows: expected at least 40, got {config.windows}")
    if not 0 <= config.slips < 1:
        raise UsageError(f"slips: expected 0 to 1, got {config.slips}")


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
