"""Miras as a grid: every loss with every retention, trained on associative recall."""

import numpy as np

from experiments.margins import standard_error
from experiments.memory_models import figures
from experiments.memory_models.common import MIRAS
from experiments.memory_models.trained import Layer, recalled
from jattn.training import Claim, Run

# Names of columns, and options of `miras`.
RETENTIONS = {
    "l2": "retention=l2",
    "lq": "retention=lq",
    "elastic": "retention=elastic:l1=0.001",
    "kl": "retention=kl",
    "kl, signed columns": "retention=kl:signed=True:axis=-2:total=16.0",
}


def cells(config) -> dict[tuple[str, str], Layer]:
    """The mechanism of each loss and retention; memories are matrices."""
    return {
        (loss, name): Layer(f"miras:depth=1:loss={loss}:{options}")
        for loss in config.grid.losses
        for name, options in RETENTIONS.items()
    }


def grid(run: Run, config) -> list[Claim]:
    """Recall at the end of training of each loss and retention."""
    chosen = config.copy_and_resolve_references()
    chosen.update({name: config.grid[name] for name in ("seeds", "steps", "layers", "batch_size")})
    found = {}
    for (loss, retention), layer in cells(config).items():
        accuracy = recalled(run, chosen, "grid", layer).history["accuracy"][-1]
        found[loss, retention] = accuracy
        run.note(f"{loss} with {retention}: {accuracy.mean():.3f} ± {standard_error(accuracy):.3f}")
    figures.grid(run, found, list(config.grid.losses), list(RETENTIONS))
    return claims_of(chosen, found)


def claims_of(config, found: dict[tuple[str, str], np.ndarray]) -> list[Claim]:
    """What was seen of single members holds for their row and column."""
    guess = 1 / config.recall.pairs
    note = f"{config.recall.pairs} pairs, {config.seeds} seeds, {config.steps} steps"
    best = max(found, key=lambda cell: found[cell].mean())
    signed = [found[cell] for cell in found if cell[1] == "kl, signed columns"]
    values = max(signed, key=lambda each: each.mean())
    return [
        MIRAS.claim(
            "grid-best", "recall: the best of all losses and retentions: three times a guess",
            3 * guess, float(found[best].mean()), ">=", because="a memory that recalls at all "
            "leaves a guess far behind", note=f"{best[0]} with {best[1]}; {note}",
            seeds=found[best],
        ),
        MIRAS.claim(
            "grid-signed", "and with signed weights, of which each column is a softmax, the best "
            "of the losses", 0.6, float(values.mean()), ">=",
            because="it is asked of Memora", note=note, seeds=values,
        ),
    ]  # fmt: skip
