"""What sparse, local and retrieving attention keeps of dense attention: sixteen papers' claims.

Windows on grids are counted in tiles; selections of blocks and tokens are compared on keys whose
structure is known; and where the paper's claim is about what is learnt, small models are trained:
routing against windows, landmarks, halos, learned connectivity, line gates, masks of turns.

    python -m experiments.sparse_attention --config=configs/sparse_attention.py:small \\
        --workdir=runs/sparse_attention

The settings, presets and expected times are in configs/sparse_attention.py.
"""

from experiments.sparse_attention import images, made_keys, passkeys, segments, tiles, tokens
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "tiles": tiles.tiles,
    "blocks": made_keys.blocks,
    "tokens": made_keys.tokens,
    "segments": segments.segments,
    "routing": tokens.routing,
    "turns": tokens.turns,
    "landmarks": passkeys.landmarks,
    "halos": images.halos,
    "connectivity": images.connectivity,
    "lines": images.lines,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    for name in ("routing", "landmarks", "turns"):
        settings = config[name]
        if settings.dim % settings.heads or settings.heads % 2:
            raise UsageError(
                f"{name}.heads: expected an even divisor of dim {settings.dim}, "
                f"got {settings.heads}"
            )
    least = 4 * config.turns.pairs + 2  # keys and values of twice as many pairs, and token 0
    if config.turns.vocabulary < least:
        raise UsageError(
            f"turns.vocabulary: expected at least {least}, got {config.turns.vocabulary}"
        )
    if config.draws < 2:
        raise UsageError(f"draws: expected at least 2, got {config.draws}")
    return run_studies(run, config, STUDIES)
