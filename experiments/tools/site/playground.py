"""The playground: one page without a network, and the table of what `explain` chooses."""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tools.site.kernels import target
from jattn.attention import explain, masks, scores

HEADS, SIZE = 8, 64
LENGTHS = (256, 4096)
PLATFORMS = {
    "CPU": ("cpu", "cpu"),
    "TPU v5e": ("tpu", "TPU v5e"),
    "GPU, H100": ("gpu", "NVIDIA H100 80GB HBM3"),
    "GPU, A100": ("gpu", "NVIDIA A100-SXM4-40GB"),
}
# One mask of each kind stands for the others: what runs it does not depend on its numbers.
MASKS: dict[str, Any] = {
    "everyone": lambda t: None,
    "causal": lambda t: masks.causal(),
    "window": lambda t: masks.sliding_window(8),
    "blocks": lambda t: masks.block_diagonal(8),
    "documents": lambda t: masks.segments(np.arange(t)[None] // 8, np.arange(t)[None] // 8),
    "neighborhood": lambda t: masks.neighborhood((t,), 7),
    "combined": lambda t: masks.causal() | masks.prefix(4),
}
MODIFICATIONS: dict[str, Any] = {
    "none": lambda t: None,
    "soft_cap": lambda t: scores.soft_cap(20.0),
    "temperature": lambda t: scores.temperature(2.0),
    "alibi": lambda t: scores.alibi(jnp.full(HEADS, 0.25), offset=0),
    "decay": lambda t: scores.decay(jnp.full((1, t, HEADS), -0.1), offset=0),
}
NORMALIZERS = ("softmax", "sigmoid", "softplus_l1", "relu")


class Kind(NamedTuple):
    """What the choice of an implementation depends on: names, and the number of tokens."""

    mask: str
    mod: str
    normalizer: str
    sink: bool
    length: int

    def __str__(self) -> str:
        sink = "sink" if self.sink else ""
        return "|".join((self.mask, self.mod, self.normalizer, sink, str(self.length)))


def kinds() -> Iterator[Kind]:
    """All that the page can show."""
    names = itertools.product(MASKS, MODIFICATIONS, NORMALIZERS, (False, True), LENGTHS)
    # Weights that no sum divides have no sink.
    found = itertools.starmap(Kind, names)
    return (kind for kind in found if not (kind.sink and kind.normalizer == "sigmoid"))


def choice(platform: str, t: int, **options: Any) -> dict[str, Any]:
    """What `explain` chooses for t tokens, 8 heads of 64, bfloat16, and why not the others.

    Args:
        platform: one of `PLATFORMS`.
        t: number of queries and of keys.
        **options: those of `attend`.
    """
    x = _tokens(t)
    with jax.sharding.use_abstract_mesh(target(*PLATFORMS[platform])):
        selection = explain(x, x, x, **options)
    return {"chosen": selection.chosen, "refused": dict(selection.refused)}


@functools.cache
def _tokens(t: int) -> jax.Array:
    return jnp.zeros((1, t, HEADS, SIZE), jnp.bfloat16)


def table(of: Iterable[Kind]) -> dict[str, Any]:
    """Choices of kinds on all platforms: those that differ, and which of them each has."""
    distinct: list[str] = []
    index: dict[str, list[int]] = {}
    mask = functools.cache(lambda name, t: MASKS[name](t))
    modification = functools.cache(lambda name, t: MODIFICATIONS[name](t))
    sink = jnp.zeros(HEADS)
    for kind in of:
        options = dict(
            mask=mask(kind.mask, kind.length),
            score_mod=modification(kind.mod, kind.length),
            normalizer=kind.normalizer,
            sink=sink if kind.sink else None,
        )
        row = [json.dumps(choice(name, kind.length, **options)) for name in PLATFORMS]
        distinct += [said for said in dict.fromkeys(row) if said not in distinct]
        index[str(kind)] = [distinct.index(said) for said in row]
    return {
        "platforms": list(PLATFORMS),
        "lengths": LENGTHS,
        "distinct": [json.loads(said) for said in distinct],
        "index": index,
    }


def page(of: Iterable[Kind] | None = None) -> str:
    """The page, self-contained, with the choices of some kinds; default all."""
    here = Path(__file__).parent / "playground"
    choices = table(kinds() if of is None else of)
    parts = {
        "/*TABLE*/": f"const TABLE = {json.dumps(choices, separators=(',', ':'))};",
        "/*MATHS*/": (here / "maths.js").read_text(),
        "/*VIEW*/": (here / "view.js").read_text(),
    }
    text = (here / "page.html").read_text()
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text
