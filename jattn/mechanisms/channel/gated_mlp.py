"""A gated MLP in the place of attention (deconstructed attention, arXiv 2510.11602).

    y_i = W_down ( silu(W_gate x_i) * W_up x_i )

Distinctive: it is what is left of attention when tokens may not be mixed. Its width, 4 m / 3 by
default, gives it as many parameters as attention's four projections. As every layer it fails; as
every other one, between layers that attend, it hardly hurts.

Limits: a gate that is constant leaves a linear map.
"""

import jax
from jaxtyping import Array, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    project_output,
)
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Params, Parts


def gated_mlp(params: dict[str, Array], x: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
    """`(silu(x gate) * x value) output`, token by token.

    Args:
        params: `gate` and `value` `[m, w]`, `output` `[w, m]`.
        x: tokens.

    Returns:
        As x.

    Reference:
        arXiv 2510.11602; the gate, arXiv 2002.05202.

    Example:
        >>> import jax.numpy as jnp
        >>> eye = jnp.eye(4)
        >>> gated_mlp({"gate": eye, "value": eye, "output": eye}, jnp.zeros((1, 4))).tolist()
        [[0.0, 0.0, 0.0, 0.0]]
    """
    maps = _project(params, x, x)
    return project_output(params, _open(maps))


def _project(params: Params, x: Array, source: Array) -> dict[str, Array]:
    return {name: linear(x, params[name]) for name in ("gate", "value")}


def _open(maps: dict[str, Array]) -> Array:
    return jax.nn.silu(maps["gate"]) * maps["value"]


def make(*, dim: int, heads: int, causal: bool = True, hidden: int | None = None) -> Mixer:
    """Makes the mixer, which mixes no tokens and so is causal.

    Args:
        dim: model dimension m.
        heads: there are none; a divisor of m, as everywhere.
        causal: True; it is.
        hidden: width w; default 4 m / 3, rounded.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> mixer = make(dim=9, heads=1)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["gate"].shape, jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 9))).shape
        ((9, 12), (1, 6, 9))
    """
    if causal is not True:
        raise ValueError("causal: gated_mlp mixes no tokens; pass causal=True")
    check_heads(dim, heads)
    hidden = max(round(4 * dim / 3), 1) if hidden is None else hidden
    check_count("hidden", hidden)

    def init(key):
        gate, up, down = jax.random.split(key, 3)
        return {
            "gate": linear_init(gate, dim, hidden),
            "value": linear_init(up, dim, hidden),
            "output": linear_init(down, hidden, dim),
        }

    def layer(parts, params, x):
        return parts.output(params, _open(parts.project(params, x, x)), x)

    def apply(parts, params, given):
        return layer(parts, params, given.x)

    def init_state(parts, params, batch_size, max_length, dtype):
        return ()

    def prefill(parts, params, x, state, length):
        return layer(parts, params, x), state

    return framed_parts(
        "gated_mlp",
        Parts(_project, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state,
        prefill=prefill,
        takes="documents",
        causal=True,
    )


MECHANISM = Mechanism(
    name="gated_mlp",
    title="Deconstructing attention: no mixing at all",
    arxiv="2510.11602",
    family="channel",
    equation="y_i = W_down (silu(W_gate x_i) * W_up x_i)",
    core=gated_mlp,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=("gate",),
    absent=("query", "key"),
)
