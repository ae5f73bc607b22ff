"""The Dynamical Systems Framework: attention, state space models and RNNs as one recurrence.

Every causal mixer here is a linear system whose matrices depend on the tokens, one for each head:

    H_i = diag(lambda_i) H_{i-1} + b_i v_i^T,    o_i = H_i^T c_i

with a write b_i, a read c_i and a decay lambda_i in R^n, and values v_i in R^e. Equivalently
o_i = sum_{j<=i} Phi_ij v_j with the mixing matrix Phi_ij = c_i . (lambda_i ... lambda_{j+1} b_j).

                          lambda_i             b_i                c_i
    attention             eta_{i-1} / eta_i    psi(k_i) / eta_i   phi(q_i)
    S6                    exp(-delta_i a)      delta_i b(u_i)     c(u_i)
    SSD                   as S6, with one a for all n
    quasi-LSTM            sigmoid(f_i), n = 1  sigmoid(i_i)       sigmoid(o_i)

Attention's normaliser eta_i is phi(q_i) . sum_{j<=i} psi(k_j) in linear attention, and a function
of token i alone, with identity features, in normalised attention.

Reference: arXiv 2405.15731.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_shape
from jattn.recurrence import recur

ETAS = {
    "exp": lambda s: s,
    "softplus": lambda s: jnp.log(jax.nn.softplus(s)),
    "sigmoid": jax.nn.log_sigmoid,
}


class System(NamedTuple):
    """A linear time-varying system for each head.

    Attributes:
        decay: logarithm of lambda `[b, t, h, n]`.
        write: b `[b, t, h, n]`.
        read: c `[b, t, h, n]`.
    """

    decay: Float[Array, "b t h n"]
    write: Float[Array, "b t h n"]
    read: Float[Array, "b t h n"]

    def __call__(self, value: Float[Array, "b t h e"]) -> Float[Array, "b t h e"]:
        """Runs the recurrence on values, token by token: decays may also grow."""
        return recur(self.read, self.write, value, decay=self.decay, mode="scan")


def mixing_matrix(system: System) -> Float[Array, "b h t t"]:
    """The matrix Phi by which a system mixes tokens: `o = Phi v`, lower triangular.

        Phi_ij = c_i . (lambda_i ... lambda_{j+1} b_j),   j <= i

    Args:
        system: decays, writes and reads.

    Returns:
        Phi `[b, h, t, t]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2405.15731, section 3.

    Example:
        >>> one = jnp.ones((1, 3, 1, 1))
        >>> mixing_matrix(System(jnp.log(0.5) * one, one, one))[0, 0, 2].tolist()
        [0.25, 0.5, 1.0]
    """
    sizes: dict[str, int] = {}
    check_shape("system.decay", system.decay, "b t h n", sizes)
    check_shape("system.write", system.write, "b t h n", sizes)
    check_shape("system.read", system.read, "b t h n", sizes)
    # Column j is the answer to a one at token j.
    ones = jnp.eye(sizes["t"], dtype=system.read.dtype)[:, None]
    value = jnp.broadcast_to(ones, (sizes["b"], sizes["t"], sizes["h"], sizes["t"]))
    return jnp.moveaxis(system(value), 1, 2)


def attention_system(
    query: Float[Array, "b t h n"],
    key: Float[Array, "b t h n"],
    log_eta: Float[Array, "b t h"],
) -> System:
    """Attention with a separable score: `o_i = (1/eta_i) sum_{j<=i} (phi(q_i).psi(k_j)) v_j`.

    Args:
        query: phi(q) `[b, t, h, n]`.
        key: psi(k) `[b, t, h, n]`.
        log_eta: logarithm of the normaliser `[b, t, h]`.

    Returns:
        The system with decay `eta_{i-1} / eta_i` and writes `psi(k_i) / eta_i`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2405.15731, section 3.

    Example:
        >>> one = jnp.ones((1, 3, 1, 1))
        >>> counts = jnp.log(jnp.arange(1.0, 4.0))[None, :, None]
        >>> mixing_matrix(attention_system(one, one, counts))[0, 0, 1].tolist()
        [0.5, 0.5, 0.0]
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h n", sizes)
    check_shape("key", key, "b t h n", sizes)
    check_shape("log_eta", log_eta, "b t h", sizes)
    before = jnp.concatenate([log_eta[:, :1], log_eta[:, :-1]], axis=1)
    decay = jnp.broadcast_to((before - log_eta)[..., None], query.shape)
    return System(decay, key * jnp.exp(-log_eta)[..., None], query)


def linear_attention_system(query: Float[Array, "b t h n"], key: Float[Array, "b t h n"]) -> System:
    """Linear attention: `attention_system` with rows of the mixing matrix that sum to one.

    Its normaliser depends on query and keys, `eta_i = phi(q_i) . sum_{j<=i} psi(k_j)`.

    Args:
        query: phi(q) `[b, t, h, n]`, positive.
        key: psi(k) `[b, t, h, n]`, positive.

    Reference:
        arXiv 2405.15731; 2006.16236.

    Example:
        >>> x = jax.nn.elu(jax.random.normal(jax.random.key(0), (2, 1, 5, 1, 3))) + 1
        >>> rows = mixing_matrix(linear_attention_system(*x)).sum(-1)
        >>> bool(jnp.allclose(rows, 1.0, atol=1e-5))
        True
    """
    eta = jnp.einsum("bthn,bthn->bth", query, jnp.cumsum(key, axis=1))
    return attention_system(query, key, jnp.log(eta))


def normalized_attention(
    query: Float[Array, "b t h n"],
    key: Float[Array, "b t h n"],
    value: Float[Array, "b t h e"],
    raw_eta: Float[Array, "b t h"],
    *,
    eta: Literal["exp", "softplus", "sigmoid"] = "exp",
) -> Float[Array, "b t h e"]:
    """Unnormalised linear attention over a learnt normaliser of each token.

        o_i = (1 / eta(s_i)) sum_{j<=i} (q_i.k_j) v_j,   s_i = w.u_i + b

    Args:
        query: `[b, t, h, n]`; there is no hidden 1/sqrt(n).
        key: `[b, t, h, n]`.
        value: `[b, t, h, e]`.
        raw_eta: s `[b, t, h]`.
        eta: `"exp"` (the paper's best), `"softplus"`, or `"sigmoid"`.

    Returns:
        Outputs `[b, t, h, e]`.

    Raises:
        ValueError: shapes that do not fit, or an unknown eta.

    Reference:
        arXiv 2405.15731, section 4.

    Example:
        >>> x = jnp.ones((1, 3, 1, 2))
        >>> normalized_attention(x, x, x, jnp.zeros((1, 3, 1)))[0, :, 0, 0].tolist()
        [2.0, 4.0, 6.0]
    """
    check_choice("eta", eta, sorted(ETAS))
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h n", sizes)
    check_shape("raw_eta", raw_eta, "b t h", sizes)
    # Outside the recurrence: eta may fall from one token to the next, a decay may not grow.
    return recur(query, key, value) * jnp.exp(-ETAS[eta](raw_eta))[..., None]


def selective_system(
    raw_delta: Float[Array, "b t h"],
    rate: Float[Array, "h n"],
    write: Float[Array, "b t h n"],
    read: Float[Array, "b t h n"],
) -> System:
    """S6, and SSD if the rate is one number a head: decay and write share the step delta.

        lambda_i = exp(-delta_i a),   b_i = delta_i b(u_i),   delta = softplus(s)

    With a = 1 the decay is `exp(-softplus(s)) = sigmoid(-s)`.

    Args:
        raw_delta: s `[b, t, h]`.
        rate: a `[h, n]`, positive.
        write: b(u) `[b, t, h, n]`.
        read: c(u) `[b, t, h, n]`.

    Returns:
        The system.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2405.15731; 2312.00752 (S6), 2405.21060 (SSD).

    Example:
        >>> one = jnp.ones((1, 3, 1, 1))
        >>> system = selective_system(jnp.zeros((1, 3, 1)), jnp.ones((1, 1)), one, one)
        >>> round(float(jnp.exp(system.decay[0, 0, 0, 0])), 6)
        0.5
    """
    sizes: dict[str, int] = {}
    check_shape("raw_delta", raw_delta, "b t h", sizes)
    check_shape("rate", rate, "h n", sizes)
    check_shape("write", write, "b t h n", sizes)
    check_shape("read", read, "b t h n", sizes)
    delta = jax.nn.softplus(raw_delta)[..., None]
    return System(-delta * rate, delta * write, read)


def taylor_features(x: Float[Array, "*batch n"], order: int) -> Float[Array, "*batch m"]:
    """Features whose inner product is the Taylor sum `sum_{p<=order} (x.y)^p / p!`.

    Softmax attention is the limit of `linear_attention_system` on these features, so its state is
    infinite. Truncation is good for small scores only.

    Args:
        x: `[..., n]`.
        order: largest power; there are `sum_p n^p` features.

    Raises:
        ValueError: a negative order.

    Reference:
        arXiv 2405.15731, section 3.

    Example:
        >>> x = jnp.array([0.3, -0.2])
        >>> phi = taylor_features(x, 6)
        >>> bool(jnp.allclose(phi @ phi, jnp.exp(x @ x), atol=1e-6))
        True
    """
    if order < 0:
        raise ValueError(f"order: expected at least 0, got {order}")
    power = jnp.ones((*x.shape[:-1], 1), x.dtype)
    parts = [power]
    for p in range(1, order + 1):
        power = (power[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], -1)
        parts.append(power / math.factorial(p) ** 0.5)
    return jnp.concatenate(parts, axis=-1)
