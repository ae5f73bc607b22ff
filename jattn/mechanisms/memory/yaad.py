"""Yaad: a memory that large errors cannot pull further than small ones.

Paper: It's All Connected (Miras), arXiv 2504.13173.

    W_t = alpha_t W_{t-1} - eta_t clip(M(W_{t-1}, k_t) - v_t, -delta_t, delta_t) dM/dW
    y_t = M(W_t, q_t)

with alpha of each token and head, and step eta and threshold delta of each channel.

Distinctive: Huber's loss, quadratic for small errors and linear beyond delta, so that an outlier
moves the memory by no more than eta delta |k|.

Limits: delta to infinity is gradient descent on the squared error with weight decay; with a linear
memory and chunks of one token, that is the gated delta rule.

The layer's short convolutions are `jattn.mechanisms.combinators.short_convolution`.
"""

from jattn.mechanisms.memory.miras import Rule, miras_scan
from jattn.mechanisms.memory.miras_layer import PARAMETERS, miras_layer
from jattn.mechanisms.mixer import Mechanism, Mixer


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    depth: int = 2,
    expansion: int = 2,
    chunk: int = 16,
    rank: int = 32,
) -> Mixer:
    """Yaad between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.
        causal: there is only a causal form.
        depth: matrices of the memory's network; 1 is a linear memory.
        expansion: its inner dimensions over m / h.
        chunk: tokens whose gradients are taken at one point.
        rank: inner dimension of the gates.

    Returns:
        A `Mixer`; its state is a `MirasState` with leaves `[b, h, ...]`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=8, heads=2)
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    return miras_layer(
        "yaad", Rule("huber"),
        dim=dim, heads=heads, depth=depth, expansion=expansion, chunk=chunk, rank=rank,
    )  # fmt: skip


MECHANISM = Mechanism(
    name="yaad",
    title="Yaad (Miras): Huber's loss",
    arxiv="2504.13173",
    family="memory",
    equation="W_t = alpha_t W_{t-1} - eta_t clip(M(k_t) - v_t, delta_t) dM/dW,  y_t = M(W_t, q_t)",
    core=miras_scan,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=PARAMETERS,
)
