"""Miras, and Memora, Moneta and Yaad: memories that differ in their loss and in what they keep.

Paper: It's All Connected (Miras), arXiv 2504.13173. With M(W, k) a network, y_t = M(W_t, q_t), and

    Memora    W_t = c softmax(alpha_t log W_{t-1} - eta_t grad |M(W_{t-1}, k_t) - v_t|^2 / 2)
    Moneta    A_t = alpha_t A_{t-1} - eta_t grad |M(W_{t-1}, k_t) - v_t|_p^p,
              W_t = A_t / |A_t|_q^(q - 2)
    Yaad      W_t = alpha_t W_{t-1} - eta_t clip(M(W_{t-1}, k_t) - v_t, -delta_t, delta_t) dM/dW

where alpha is of each token and head, and step eta and threshold delta are of each channel. Softmax
and norms are over all entries of a matrix; vectors of the network, its gain, keep a plain decay.

Distinctive: Memora's retention is by the Kullback-Leibler divergence: weights stay positive and
keep their sum c, the number of columns; updates multiply instead of adding. Moneta with p = 3 looks
at large errors more than the square does, and q = 4 bounds the weights as they grow: A scaled by c
scales W by c^(3 - q). Yaad has Huber's loss, quadratic for small errors and linear beyond delta, so
that an outlier moves the memory by no more than eta delta |k|.

Limits: Memora with alpha = 1 and no steps leaves W as it is, with alpha = 0 it is uniform. Moneta
with q = 2 is W = A, and with p = 2 besides, gradient descent with weight decay at twice the step;
the larger p is, the less it stands outliers. Yaad's delta to infinity is gradient descent on the
squared error with weight decay; with a linear memory and chunks of one token, that is the gated
delta rule.

`miras` is the family itself: any loss, retention, network and learner. Of its settings

    yaad              loss="huber"
    moneta            loss="lp", retention="lq"
    memora            retention="kl"
    titans_memory     momentum=True, with one step size for all channels of the error
    delta_rule        depth=1, chunk=1, where nothing is forgotten and the memory begins at zero

are those mechanisms, the last two with their rates put into `rates_down`, `rates_up`, `rates_bias`.

The layers' short convolutions are `jattn.mechanisms.combinators.short_convolution`.
"""

from jattn.checks import check_choice, check_flag, check_number
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.memory.miras import miras_scan
from jattn.mechanisms.memory.miras_layer import PARAMETERS, MemoryShape, miras_layer
from jattn.mechanisms.memory.miras_rule import LOSSES, RETENTIONS, Rule
from jattn.mechanisms.mixer import Mixer


def make_memora(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    depth: int = 2,
    expansion: int = 4,
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
        >>> mixer = make_memora(dim=8, heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    return miras_layer(
        "memora",
        Rule("l2", "kl"),
        MemoryShape(depth, expansion, chunk=chunk, rank=rank),
        dim=dim,
        heads=heads,
    )


def make_moneta(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    depth: int = 2,
    expansion: int = 4,
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
        >>> mixer = make_moneta(dim=8, heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_number("power", power, least=1)
    check_number("norm", norm, least=1)
    return miras_layer(
        "moneta",
        Rule("lp", "lq", power=power, norm=norm),
        MemoryShape(depth, expansion, chunk=chunk, rank=rank),
        dim=dim,
        heads=heads,
    )


def make_yaad(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    depth: int = 2,
    expansion: int = 4,
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
        >>> mixer = make_yaad(dim=8, heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    return miras_layer(
        "yaad",
        Rule("huber"),
        MemoryShape(depth, expansion, chunk=chunk, rank=rank),
        dim=dim,
        heads=heads,
    )


def make_miras(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    loss: str = "l2",
    retention: str = "l2",
    depth: int = 2,
    expansion: int = 4,
    residual_norm: bool = True,
    momentum: bool = False,
    retain: str = "head",
    chunk: int = 16,
    rank: int = 32,
    power: float = 3.0,
    norm: float = 4.0,
    total: float | None = None,
    axis: int | None = None,
    signed: bool = False,
    l1: float = 0.0,
) -> Mixer:
    """A memory of the family by its four choices, between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m, each with a memory.
        causal: there is only a causal form.
        loss: which errors count: `"l2"`, `"lp"`, `"huber"`, `"huber_norm"` or `"robust"`.
        retention: how the past is kept: `"l2"`, `"lq"`, `"kl"`, `"elastic"` or `"sigmoid"`.
        depth: matrices of the memory's network; 1 is a linear memory.
        expansion: its inner dimensions over m / h.
        residual_norm: whether a network of 2 matrices and more is `x + norm(mlp(x))`; else it is
            the plain `mlp(x)`.
        momentum: whether the learner has any; else it is plain descent.
        retain: whether alpha is one a `"head"` or one a `"channel"`.
        chunk: tokens whose gradients are taken at one point.
        rank: inner dimension of the gates.
        power: p of `"lp"`.
        norm: q of `"lq"`.
        total: c of `"kl"`; None: the number of columns of a matrix, and 1 with an axis.
        axis: of `"kl"`, the axis of a matrix that a softmax is over; None: all entries.
        signed: of `"kl"`, whether weights are the difference of two positive parts.
        l1: strength of `"elastic"`'s pull to zero.

    Returns:
        A `Mixer`; its state is a `MirasState` with leaves `[b, h, ...]`.

    Raises:
        ValueError: a choice that there is not, or a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make_miras(dim=8, heads=2, loss="huber", depth=1, momentum=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_choice("loss", loss, LOSSES)
    check_choice("retention", retention, RETENTIONS)
    for name, value in (("power", power), ("norm", norm)):
        check_number(name, value, least=1)
    check_number("l1", l1, least=0)
    if total is not None:
        check_number("total", total, above=0)
    check_choice("axis", axis, (None, 0, 1, -1, -2))
    check_flag("signed", signed)
    if signed and retention != "kl":
        raise ValueError(f"signed: expected False with retention={retention!r}, got True")
    rule = Rule(
        loss, retention, power=power, norm=norm, total=total, axis=axis, signed=signed, l1=l1
    )
    shape = MemoryShape(depth, expansion, residual_norm, chunk, rank, retain, momentum)
    return miras_layer("miras", rule, shape, dim=dim, heads=heads)


MEMORA = Mechanism(
    name="memora",
    title="Memora (Miras): KL retention",
    arxiv="2504.13173",
    family="memory",
    equation="W_t = c softmax(alpha_t log W_{t-1} - eta_t grad |M(k_t) - v_t|^2 / 2)",
    core=miras_scan,
    make=make_memora,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    documents="never",
    cost="linear",
    parameters=PARAMETERS,
)

MONETA = Mechanism(
    name="moneta",
    title="Moneta (Miras): l_p loss, l_q retention",
    arxiv="2504.13173",
    family="memory",
    equation="A_t = alpha_t A_{t-1} - eta_t grad |M(k_t) - v_t|_p^p,  W_t = A_t / |A_t|_q^(q - 2)",
    core=miras_scan,
    make=make_moneta,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    documents="never",
    cost="linear",
    parameters=PARAMETERS,
)

YAAD = Mechanism(
    name="yaad",
    title="Yaad (Miras): Huber's loss",
    arxiv="2504.13173",
    family="memory",
    equation="W_t = alpha_t W_{t-1} - eta_t clip(M(k_t) - v_t, delta_t) dM/dW,  y_t = M(W_t, q_t)",
    core=miras_scan,
    make=make_yaad,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    documents="never",
    cost="linear",
    parameters=PARAMETERS,
)

MIRAS = Mechanism(
    name="miras",
    title="Miras: any loss, retention, network and learner",
    arxiv="2504.13173",
    family="memory",
    equation="A_t = alpha_t A_{t-1} - eta_t grad loss(M(W_{t-1}, k_t) - v_t),  W_t = f(A_t)",
    core=miras_scan,
    make=make_miras,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    documents="never",
    cost="linear",
    parameters=PARAMETERS,
)
