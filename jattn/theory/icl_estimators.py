"""Estimators that an attention layer is compared with, on one regression prompt.

All take a `jattn.tasks.linear_regression.Prompt` without batch axis (vmap for a batch) and predict
its first response.

Reference: arXiv 2503.12734.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.tasks.linear_regression import Prompt


def gradient_descent(prompt: Prompt, eta: float | Float[Array, ""]) -> Float[Array, ""]:
    """One step from zero on the least-squares loss: `(eta/L) sum_l y_l <x_l, x_q>`."""
    y = prompt.responses[:, 0]
    return eta * jnp.mean(y * (prompt.inputs @ prompt.query))


def debiased_gradient_descent(prompt: Prompt, eta: float | Float[Array, ""]) -> Float[Array, ""]:
    """The same step with centred inputs: `(eta/L) sum_l y_l <x_l - mean(x), x_q>`."""
    y = prompt.responses[:, 0]
    return eta * jnp.mean(y * ((prompt.inputs - prompt.inputs.mean(0)) @ prompt.query))


def preconditioned_descent(prompt: Prompt, gain: Float[Array, "n d d"]) -> Float[Array, " n"]:
    """The debiased step with a matrix for each response: `(1/L) sum_l y_ln (x_l - mean) G_n x_q`.

    Example:
        >>> prompt = Prompt(jnp.eye(2), jnp.ones((2, 1)), jnp.ones(2), jnp.zeros(1))
        >>> preconditioned_descent(prompt, jnp.eye(2)[None]).tolist()
        [0.0]
    """
    centred = prompt.inputs - prompt.inputs.mean(0)
    products = jnp.einsum("ld,nde,e->ln", centred, gain, prompt.query)
    return jnp.mean(prompt.responses * products, axis=0)


def ridge(prompt: Prompt, penalty: float | Float[Array, ""]) -> Float[Array, ""]:
    """`x_q^T (X^T X + penalty I)^-1 X^T y`; Bayes for beta ~ N(0, I/d) at `penalty = d s2`."""
    x, y = prompt.inputs, prompt.responses[:, 0]
    gram = x.T @ x + penalty * jnp.eye(x.shape[1], dtype=x.dtype)
    return prompt.query @ jnp.linalg.solve(gram, x.T @ y)


def softmax_heads(
    prompt: Prompt, omega: Float[Array, " h"], mu: Float[Array, " h"]
) -> Float[Array, ""]:
    """The reduced attention layer: `sum_h mu_h < y, softmax(omega_h X x_q) >`.

    With `omega = (g, -g)`, `mu = eta/(2g) (1, -1)` and g -> 0 it becomes debiased gradient descent.
    """
    scores = jnp.outer(omega, prompt.inputs @ prompt.query)
    return mu @ jax.nn.softmax(scores, axis=-1) @ prompt.responses[:, 0]
