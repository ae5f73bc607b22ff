"""Moneta: a memory with other norms, p of its errors and q of its weights.

Paper: It's All Connected (Miras), arXiv 2504.13173.

    A_t = alpha_t A_{t-1} - eta_t grad |M(W_{t-1}, k_t) - v_t|_p^p
    W_t = A_t / |A_t|_q^(q - 2),     y_t = M(W_t, q_t)

with alpha of each token and head, eta of each channel, and the norm over all entries of a matrix;
vectors of the network, its gain, keep a plain decay.

Distinctive: p = 3 looks at large errors more than the square does, and q = 4 bounds the weights as
they grow: A scaled by c scales W by c^(3 - q).

Limits: q = 2 is W = A, and with p = 2 besides, gradient descent with weight decay at twice the
step. The larger p is, the less it stands outliers.

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
    power: float = 3.0,
    norm: float = 4.0,
) -> Mixer:
    """Moneta between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.
        causal: there is only a causal form.
        depth: matrices of the memory's network; 1 is a linear memory.
        expansion: its inner dimensions over m / h.
        chunk: tokens whose gradients are taken at one point.
        rank: inner dimension of the gates.
        power: p.
        norm: q.

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
        "moneta", Rule("lp", "lq", power=power, norm=norm),
        dim=dim, heads=heads, depth=depth, expansion=expansion, chunk=chunk, rank=rank,
    )  # fmt: skip


MECHANISM = Mechanism(
    name="moneta",
    title="Moneta (Miras): l_p loss, l_q retention",
    arxiv="2504.13173",
    family="memory",
    equation="A_t = alpha_t A_{t-1} - eta_t grad |M(k_t) - v_t|_p^p,  W_t = A_t / |A_t|_q^(q - 2)",
    core=miras_scan,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="linear",
    parameters=PARAMETERS,
)
