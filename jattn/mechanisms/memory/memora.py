"""Memora: a memory whose weights are a distribution.

Paper: It's All Connected (Miras), arXiv 2504.13173.

    W_t = c softmax(alpha_t log W_{t-1} - eta_t grad |M(W_{t-1}, k_t) - v_t|^2 / 2)
    y_t = M(W_t, q_t)

with alpha of each token and head, eta of each channel, and the softmax over all entries of a
matrix; vectors of the network, its gain, keep a plain decay.

Distinctive: retention by the Kullback-Leibler divergence. Weights stay positive and keep their sum
c, the number of columns; updates multiply instead of adding.

Limits: alpha = 1 without steps leaves W as it is, alpha = 0 makes it uniform.

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
    """Memora between projections.

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
        "memora", Rule("l2", "kl"),
        dim=dim, heads=heads, depth=depth, expansion=expansion, chunk=chunk, rank=rank,
    )  # fmt: skip


MECHANISM = Mechanism(
    name="memora",
    title="Memora (Miras): KL retention",
    arxiv="2504.13173",
    family="memory",
    equation="W_t = c softmax(alpha_t log W_{t-1} - eta_t grad |M(k_t) - v_t|^2 / 2)",
    core=miras_scan,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=PARAMETERS,
)
