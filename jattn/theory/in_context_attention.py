"""One attention layer that reads a regression prompt: the model of in-context regression theory.

Tokens `z_l = [x_l; y_l]` in R^D, D = d + n, query token `z_q = [x_q; 0]`:

    yhat = sum_h O_h V_h Z^T w( z_l^T K_h^T Q_h z_q / sqrt(D) ),

where `w` is a softmax over demonstrations, or `f / sum f` for another `f`, or `s / L` (linear
attention). The query does not attend to itself; no bias, residual or position. All that matters
of the weights are two circuits, `KQ_h = K_h^T Q_h / sqrt(D)` and `OV_h = O_h V_h`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice
from jattn.tasks.linear_regression import Prompt

INITS = ("linear_default", "small_identity", "opposite_identity")
ACTIVATIONS = ("softmax", "linear", "affine", "square", "tanh")


class Parameters(NamedTuple):
    """Weights of the layer; tokens are columns, so a projection is `W z`.

    Attributes:
        query, key, value: `[h, D, D]`.
        output: `[h, n, D]`.
    """

    query: Float[Array, "*seeds h D D"]
    key: Float[Array, "*seeds h D D"]
    value: Float[Array, "*seeds h D D"]
    output: Float[Array, "*seeds h n D"]


def init(
    key: jax.Array, *, heads: int, dim: int, responses: int = 1, scheme: str = "linear_default"
) -> Parameters:
    """Draws the weights.

    Args:
        key: a PRNG key.
        heads: number of heads h; each is as wide as a token, D = dim + responses.
        dim: number of input coordinates d.
        responses: number of labels n.
        scheme: `"linear_default"`: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in D for query, key and
            value, h D for output. `"small_identity"`: query and key are 1e-6 I.
            `"opposite_identity"`: the same, with the sign of the query flipped in the second half
            of the heads, so that both signs are there from the start.

    Raises:
        ValueError: an unknown scheme.

    Example:
        >>> init(jax.random.key(0), heads=2, dim=5).query.shape
        (2, 6, 6)
    """
    check_choice("scheme", scheme, INITS)
    width = dim + responses
    keys = jax.random.split(key, 4)

    def uniform(key, shape, fan_in):
        return jax.random.uniform(key, shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)

    square = (heads, width, width)
    query, key_weights = uniform(keys[0], square, width), uniform(keys[1], square, width)
    if scheme != "linear_default":
        identity = 1e-6 * jnp.eye(width)
        sign = jnp.ones(heads)
        if scheme == "opposite_identity":
            sign = jnp.where(jnp.arange(heads) < (heads + 1) // 2, 1.0, -1.0)
        query, key_weights = sign[:, None, None] * identity, jnp.broadcast_to(identity, square)
    value = uniform(keys[2], square, width)
    output = uniform(keys[3], (heads, responses, width), heads * width)
    return Parameters(query, key_weights, value, output)


def circuits(
    params: Parameters,
) -> tuple[Float[Array, "*seeds h D D"], Float[Array, "*seeds h n D"]]:
    """The key-query and output-value circuits.

    Returns:
        `KQ_h = K_h^T Q_h / sqrt(D)` (row: key coordinate, column: query coordinate) and
        `OV_h = O_h V_h` (row: response, column: token coordinate).
    """
    width = params.query.shape[-1]
    key_query = jnp.einsum("...hai,...haj->...hij", params.key, params.query) / width**0.5
    output_value = jnp.einsum("...hna,...hai->...hni", params.output, params.value)
    return key_query, output_value


def activation_weights(
    activation: str, *, strength: float = 1.0, train_length: int | None = None
) -> Callable[[Float[Array, "*batch l"]], Float[Array, "*batch l"]]:
    """Makes the map from scores to attention weights over the last axis.

    Args:
        activation: `"softmax"`; `"linear"`: `s / train_length`, a fixed number, which is what
            breaks length generalisation; otherwise `f(s) / sum f(s)` with f = `1 + C s`
            (`"affine"`), `(1 + C s)^2` (`"square"`) or `1 + tanh(C s)` (`"tanh"`). These may be
            negative and are not clipped.
        strength: C.
        train_length: L of linear attention.

    Raises:
        ValueError: an unknown activation, or linear without its length.
    """
    check_choice("activation", activation, ACTIVATIONS)
    if activation == "softmax":
        return lambda scores: jax.nn.softmax(scores, axis=-1)
    if activation == "linear":
        if train_length is None:
            raise ValueError("train_length: linear attention divides by it, got None")
        return lambda scores: scores / train_length
    function = {
        "affine": lambda s: 1 + strength * s,
        "square": lambda s: (1 + strength * s) ** 2,
        "tanh": lambda s: 1 + jnp.tanh(strength * s),
    }[activation]

    def normalised(scores):
        values = function(scores)
        return values / values.sum(-1, keepdims=True)

    return normalised


def predict(
    params: Parameters,
    prompt: Prompt,
    weights: Callable[[Array], Array] = jax.nn.softmax,
) -> Float[Array, "b n"]:
    """Predicts the query's responses from a batch of prompts.

    The circuits are contracted first: a step then costs `h D` per demonstration, not `h D^2`.

    Args:
        params: the weights.
        prompt: a batch of prompts, leading axis b.
        weights: scores to weights over the last axis; see `activation_weights`.

    Returns:
        `[b, n]`.

    Reference:
        arXiv 2503.12734, eq. (2.2).
    """
    dim = prompt.query.shape[-1]
    key_query, output_value = circuits(params)
    tokens = jnp.concatenate([prompt.inputs, prompt.responses], axis=-1)
    probes = jnp.einsum("hij,bj->bhi", key_query[..., :dim], prompt.query)
    scores = jnp.einsum("bli,bhi->bhl", tokens, probes)
    mixed = jnp.einsum("bhl,bli->bhi", weights(scores), tokens)
    return jnp.einsum("hni,bhi->bn", output_value, mixed)


def squared_error(
    params: Parameters,
    prompt: Prompt,
    weights: Callable[[Array], Array] = jax.nn.softmax,
) -> Float[Array, ""]:
    """Mean over prompts and responses of `(yhat - y)^2`."""
    return jnp.mean((predict(params, prompt, weights) - prompt.target) ** 2)
