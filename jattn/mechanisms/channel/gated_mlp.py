"""A gated MLP in the place of attention (deconstructed attention, arXiv 2510.11602).

    y_i = W_down ( silu(W_gate x_i) * W_up x_i )

Distinctive: it is what is left of attention when tokens may not be mixed. Its width, 4 m / 3 by
default, gives it as many parameters as attention's four projections. As every layer it fails; as
every other one, between layers that attend, it hardly hurts.

Limits: a gate that is constant leaves a linear map.
"""

import jax
from jaxtyping import Array, Float

from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mechanism, Mixer


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
    opened = jax.nn.silu(p.linear(x, params["gate"])) * p.linear(x, params["value"])
    return p.project_out(params, opened)


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
        >>> params = mixer.init(jax.random.key(0))
        >>> params["gate"].shape, jax.jit(mixer.apply)(params, jnp.ones((1, 6, 9))).shape
        ((9, 12), (1, 6, 9))
    """
    if not causal:
        raise ValueError("causal: gated_mlp mixes no tokens; pass causal=True")
    p.check_heads(dim, heads)
    hidden = max(round(4 * dim / 3), 1) if hidden is None else hidden
    if hidden < 1:
        raise ValueError(f"hidden: expected at least 1, got {hidden}")

    def init(key):
        gate, up, down = jax.random.split(key, 3)
        return {
            "gate": p.linear_init(gate, dim, hidden),
            "value": p.linear_init(up, dim, hidden),
            "output": p.linear_init(down, hidden, dim),
        }

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("gated_mlp", context)
        p.check_tokens(dim, x, None, positions)
        p.padding(mask, *x.shape[:2])
        return gated_mlp(params, x)

    def init_state(params, batch_size, max_length):
        return ()

    def step(params, x, state):
        return gated_mlp(params, x), state

    return Mixer(init, apply, init_state, step)


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
