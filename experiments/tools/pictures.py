"""Pictures of what mechanisms look at: one fixed input, random parameters, one way for each kind.

Mixers and pools: ||dy_i / dx_j||, how much output i depends on token j. Gates: the factors of each
channel and token. Pointers: the probability of each token.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jattn
from jattn.lens.influence import influence

TOKENS, DIM, HEADS = 24, 16, 2
CAPTIONS = {
    "mixer": "How much each output (row) depends on each token (column).",
    "pool": "How much each output (row) depends on each token (column).",
    "gate": "The factor of each channel (row) at each token (column), least to greatest.",
    "pointer": "The probability that each query (row) gives each token (column).",
}


def tokens() -> Float[Array, "t m"]:
    """The input of all pictures: random tokens, of which the second half repeats the first."""
    half = 2 * jax.random.normal(jax.random.key(1), (TOKENS // 2, DIM))
    return jnp.concatenate([half, half])


def looked_at(name: str) -> Float[np.ndarray, "row column"]:
    """What a mechanism looks at, in [0, 1]: rows over their largest, a gate's factors stretched."""
    mechanism, x = jattn.zoo.info(name), tokens()
    if mechanism.kind == "mixer":
        made = jattn.zoo.make(name, dim=DIM, heads=HEADS, causal=mechanism.causal)
    else:
        made = jattn.zoo.make(name, dim=DIM)
    params = made.init(jax.random.key(0))
    if mechanism.kind == "gate":
        factors = jnp.broadcast_to(jax.jit(made.factors)(params, x[None])[0], x.shape).T
        span = factors.max() - factors.min()
        return np.asarray((factors - factors.min()) / jnp.where(span > 0, span, 1))
    if mechanism.kind == "pointer":
        pattern = jax.nn.softmax(jax.jit(made.apply)(params, x[None], x[None])[0])
    else:
        pattern = influence(jax.jit(lambda x: made.apply(params, x[None])[0]), x)
    largest = pattern.max(1, keepdims=True)
    return np.asarray(pattern / jnp.where(largest > 0, largest, 1))


def draw(name: str, path: Path) -> None:
    """Draws what a mechanism looks at."""
    from matplotlib import colors
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6, 1.6), dpi=100)
    axis = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    norm = colors.PowerNorm(0.5, 0, 1)
    axis.imshow(looked_at(name), cmap="magma_r", norm=norm, aspect="auto")
    axis.set_xticks([])
    axis.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def sheet(paths: Sequence[Path], path: Path, columns: int = 14) -> None:
    """Draws pictures side by side, in rows of as many as there are columns."""
    from matplotlib import image
    from matplotlib.figure import Figure

    rows = -(-len(paths) // columns)
    figure = Figure(figsize=(columns * 0.66, rows * 0.66), dpi=100)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, one in zip(axes, paths, strict=False):
        axis.imshow(image.imread(one), interpolation="nearest")
    figure.subplots_adjust(
        left=0.004, right=0.996, bottom=0.004, top=0.996, wspace=0.06, hspace=0.06
    )
    figure.savefig(path, metadata={"Software": None})
