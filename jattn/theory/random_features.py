"""Random-feature layers: attention heads and hidden units that are frozen, with a linear read-out.

A query x_0 and keys x_1..x_N on the unit sphere of R^d, with a constant appended, x~ = [x; 1]:

    attention (RFA)   phi_m(x) = (1/N) sum_i relu(x~_0^T W_m x~_i) x~_i,   W_m ~ N(0, 1/4) entrywise
    biased (BRFA)     the same with W_m = bias_scale [[I, 0], [0, 0]] + N(0, 1/4)
    network (RFMLP)   phi_k(x) = relu(<w_k, [x_0; x_1; ..; x_N; 1]>),      w_k ~ N(0, I / (N+2))

Every pre-activation has unit variance (and, for BRFA, mean bias_scale <x_0, x_i>). Each head and
unit is drawn from its own key, so that wide layers can be computed in blocks of any size.

Reference: arXiv 2307.11353.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_shape

ACTIVATIONS = ("relu", "softmax")


def interaction_matrix(
    key: jax.Array, dim: int, bias_scale: float | Float[Array, ""] = 0.0
) -> Float[Array, "D D"]:
    """The frozen query-key matrix of one head: `bias_scale [[I, 0], [0, 0]] + N(0, 1/4)`.

    Args:
        key: PRNG key of this head; vmap over keys for many heads.
        dim: d, coordinates of a token without the constant; D is d + 1.
        bias_scale: strength of the mean; 0 is plain RFA, 1 adds <x_0, x_i> to the scores.

    Returns:
        The matrix W `[D, D]`, rows for the query and columns for the key.

    Reference:
        arXiv 2307.11353, the biased weights of its last section.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 100)
        >>> jax.vmap(lambda key: interaction_matrix(key, 8, 1.0))(keys).shape
        (100, 9, 9)
    """
    identity = jnp.diag(jnp.append(jnp.ones(dim, jnp.float32), jnp.float32(0.0)))
    noise = jax.random.normal(key, (dim + 1, dim + 1), jnp.float32) / 2
    return jnp.asarray(bias_scale, jnp.float32) * identity + noise


def with_constant(x: Float[Array, "*batch d"]) -> Float[Array, "*batch D"]:
    """Homogeneous coordinates `[x; 1]`."""
    return jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)


def attention_features(
    query: Float[Array, "b d"],
    keys: Float[Array, "b s d"],
    weights: Float[Array, "h D D"],
    *,
    mask: Bool[Array, "b s"] | None = None,
    activation: str = "relu",
) -> Float[Array, "b h D"]:
    """What frozen heads read: `phi_m = (1/N) sum_i relu(x~_0^T W_m x~_i) x~_i`.

    It is one layer of ReLU attention whose weights are not divided by their sum: with queries
    `W_m^T x~_0` and x~_i as keys and values, `jattn.attend` at scale 1 with the normaliser
    `Normalizer("relu", jax.nn.relu, divide=False)` gives N times phi.

    Args:
        query: x_0 `[b, d]`.
        keys: x_1..x_N `[b, s, d]`.
        weights: W_m `[h, d+1, d+1]`, see `interaction_matrix`.
        mask: bool `[b, s]`, True = a key that counts; N is then the number of those.
        activation: `"relu"` as above, or `"softmax"`: weights softmax over the keys.

    Returns:
        Features `[b, h, d+1]`.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.

    Reference:
        arXiv 2307.11353, section 2.

    Example:
        >>> x = jnp.eye(3)[None]
        >>> attention_features(x[:, 0], x[:, 1:], jnp.ones((5, 4, 4))).shape
        (1, 5, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b d", sizes)
    check_shape("keys", keys, "b s d", sizes)
    sizes["d+1"] = sizes["d"] + 1
    check_shape("weights", weights, "h d+1 d+1", sizes)
    check_choice("activation", activation, ACTIVATIONS)
    mask = jnp.ones(keys.shape[:2], bool) if mask is None else mask
    check_shape("mask", mask, "b s", sizes)
    query, keys = with_constant(query), with_constant(keys)
    scores = jnp.einsum("bhe,bse->bhs", jnp.einsum("bd,hde->bhe", query, weights), keys)
    if activation == "softmax":
        scores = jax.nn.softmax(scores, axis=-1, where=mask[:, None])
    else:
        count = jnp.sum(mask, axis=-1)[:, None, None].astype(scores.dtype)
        scores = jnp.where(mask[:, None], jax.nn.relu(scores), 0) / count
    return jnp.einsum("bhs,bse->bhe", scores, keys)


def random_feature_attention(
    query: Float[Array, "b d"],
    keys: Float[Array, "b s d"],
    weights: Float[Array, "h D D"],
    values: Float[Array, "h D"],
    *,
    mask: Bool[Array, "b s"] | None = None,
    activation: str = "relu",
) -> Float[Array, " b"]:
    """The layer: `f(x) = sum_m <v_m, phi_m(x)>`, linear in its trained values v.

    Args:
        query: x_0 `[b, d]`.
        keys: x_1..x_N `[b, s, d]`.
        weights: W_m `[h, d+1, d+1]`, frozen.
        values: v_m `[h, d+1]`, trained.
        mask: see `attention_features`.
        activation: see `attention_features`.

    Returns:
        Outputs `[b]`.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.

    Reference:
        arXiv 2307.11353, section 2.

    Example:
        >>> x = jnp.eye(3)[None]
        >>> float(random_feature_attention(x[:, 0], x[:, 1:], jnp.ones((5, 4, 4)), jnp.zeros((5, 4)))[0])
        0.0
    """  # noqa: E501
    features = attention_features(query, keys, weights, mask=mask, activation=activation)
    check_shape("values", values, "h D", {"h": features.shape[1], "D": features.shape[2]})
    return jnp.einsum("bhe,he->b", features, values)


def network_features(
    query: Float[Array, "b d"],
    keys: Float[Array, "b s d"],
    weights: Float[Array, "u inputs"],
    *,
    mask: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b u"]:
    """Hidden units of a two-layer network on the tokens put end to end.

        phi_k = relu(<w_k, [x_0; x_1; ..; x_N; 1]>) / sqrt(N + 2)

    so that weights of unit variance give pre-activations of unit variance.

    Args:
        query: x_0 `[b, d]`.
        keys: x_1..x_N `[b, s, d]`.
        weights: w_k `[u, (s+1) d + 1]`, of unit variance.
        mask: bool `[b, s]`, True = a key that counts; others are zero inputs, and N the number of
            those that count.

    Returns:
        Features `[b, u]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2307.11353, the baseline of its comparison.

    Example:
        >>> x = jnp.eye(3)[None]
        >>> network_features(x[:, 0], x[:, 1:], jnp.ones((5, 10))).shape
        (1, 5)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b d", sizes)
    check_shape("keys", keys, "b s d", sizes)
    sizes["(s+1)d+1"] = (sizes["s"] + 1) * sizes["d"] + 1
    check_shape("weights", weights, "u (s+1)d+1", sizes)
    mask = jnp.ones(keys.shape[:2], bool) if mask is None else mask
    check_shape("mask", mask, "b s", sizes)
    keys = jnp.where(mask[..., None], keys, 0)
    inputs = with_constant(jnp.concatenate([query, keys.reshape(len(keys), -1)], axis=-1))
    scale = jnp.sqrt(jnp.sum(mask, axis=-1, keepdims=True).astype(inputs.dtype) + 2)
    return jax.nn.relu(inputs @ weights.T) / scale
