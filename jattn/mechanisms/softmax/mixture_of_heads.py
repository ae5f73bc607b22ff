"""Mixture of heads (Jin et al. 2024, arXiv 2410.11842): each token takes its own few heads.

    y_t = sum_n G_tn O_tn W_n

O_tn is what head n of softmax attention gives token t, W_n its rows of the output projection. The
first `shared` heads are always on; of the others a token takes the `chosen` ones its router likes
best. The gates G have mean 1 over the heads that are on.

Distinctive: multi-head attention is a sum over heads; here it is a weighted sum of fewer.

Limits: routers of zero with every head chosen are softmax attention. `router="query_norm"` adds no
parameters and switches heads of a trained model. `jattn.mechanisms.combinators.routed` does it to
any other mixer, and `moh_gates` there returns the loss that balances the load.
"""

from jattn.mechanisms.combinators.routed import moh_gates, routed
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.mechanisms.softmax import softmax_attention


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    shared: int | None = None,
    chosen: int | None = None,
    router: str = "learned",
) -> Mixer:
    """Makes the mixer; see `jattn.mechanisms.combinators.routed` for its parameters.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        shared: heads that are always on; default a quarter.
        chosen: routed heads that a token takes; default half of all heads, two at least.
        router: `"learned"`, or `"query_norm"`, which chooses by the length of queries.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> mixer = make(dim=32, heads=8, shared=2, chosen=4)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["router"].shape, jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        ((32, 6), (1, 6, 32))
    """
    plain = softmax_attention.make(
        dim=dim, heads=heads, causal=causal, kv_heads=kv_heads, rotary=rotary, window=window
    )
    return routed(plain, dim=dim, heads=heads, shared=shared, chosen=chosen, router=router)


MECHANISM = Mechanism(
    name="mixture_of_heads",
    title="MoH: multi-head attention as mixture of heads",
    arxiv="2410.11842",
    family="softmax",
    equation="y_i = sum_n G_in O_in W_n, G = top-k of softmax(x_i W_router)",
    core=moh_gates,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=("router",),
)
