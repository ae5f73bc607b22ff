"""Asks whether a generator's cross-attention shows its mistakes, and whether mending it mends them.

A small text-to-image diffusion transformer is trained on captioned scenes of coloured shapes. Asked
for three objects it leaves some out or swaps their shapes. A-STAR (2023, arXiv 2306.14544) moves
the noisy image so that the maps of two objects do not overlap and do not fade; TextPixs (2025,
2507.06033) keeps maps apart by their cosine; SoftPAG and HeadHunter (2025, 2506.10978) guide away
from a prediction whose chosen heads see nothing but each patch itself.

    python -m experiments.map_guidance --config=configs/map_guidance.py:small \\
        --workdir=runs/map_guidance

The settings, presets and expected times are in configs/map_guidance.py.
"""

from experiments.map_guidance.study import guidance
from experiments.word_models import require_counts
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"guidance": guidance}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    least = {"steps": 1, "batch_size": 1, "sampling_steps": 2, "test": 1, "chosen_on": 1}
    require_counts(config, least | {"sets": 2, "rounds": 1, "heads_a_round": 1})
    if config.dim % config.heads:
        raise UsageError(f"heads: expected a divisor of dim={config.dim}, got {config.heads}")
    if config.rounds * config.heads_a_round > config.layers * config.heads:
        raise UsageError(
            f"rounds: expected at most {config.layers * config.heads} heads in all, got "
            f"{config.rounds} times {config.heads_a_round}"
        )
    return run_studies(run, config, STUDIES)
