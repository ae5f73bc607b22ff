"""Tuned lens: an affine map a layer that makes the logit lens say what the model will say.

    logits_l = unembed(norm(x_l + x_l A_l + b_l)),   trained by KL(final || logits_l)

With A and b zero, as they are at first, it is the logit lens.

Reference: arXiv 2303.08112.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number
from jattn.lens.readouts import logit_lens
from jattn.lens.run import Model, depth, run


class Translators(NamedTuple):
    """Affine maps of the residual stream behind each layer.

    Attributes:
        matrix: A, `[L, m, m]`.
        shift: b, `[L, m]`.
    """

    matrix: Float[Array, "L m m"]
    shift: Float[Array, "L m"]


def tuned_lens(
    model: Model, translators: Translators, resid: Float[Array, "L b t m"]
) -> Float[Array, "L b t vocab"]:
    """Logits of every layer's `resid_post`, by way of its translator."""
    moved = jnp.einsum("lbtm,lmn->lbtn", resid, translators.matrix)
    return logit_lens(model, resid + moved + translators.shift[:, None, None])


def tuned_lens_loss(
    model: Model, translators: Translators, tokens: Int[Array, "b t"]
) -> Float[Array, " L"]:
    """KL of each layer's prediction from the model's own, mean over tokens, nats."""
    final, found = run(model, tokens, record=("resid_post",))
    ours = jax.nn.log_softmax(tuned_lens(model, translators, found["resid_post"]), -1)
    theirs = jax.nn.log_softmax(final, -1)
    return jnp.sum(jnp.exp(theirs) * (theirs - ours), -1).mean((1, 2))


def fit_tuned_lens(
    model: Model, batches: Int[Array, "n b t"], *, rate: float = 1e-3
) -> tuple[Translators, Float[Array, "n L"]]:
    """Trains translators with Adam, one step a batch, in one program.

    Args:
        model: whose streams are read; it stays as it is.
        batches: texts `[n, b, t]`.
        rate: of learning.

    Returns:
        Translators, and the loss of each layer before each step.

    Reference:
        arXiv 2303.08112.
    """
    check_count("batches", len(batches))
    check_number("rate", rate, above=0)
    width = run(model, batches[0, :1, :1], record=("resid_post",))[1]["resid_post"].shape[-1]
    layers = depth(model)
    start = Translators(jnp.zeros((layers, width, width)), jnp.zeros((layers, width)))
    optimizer = optax.adam(rate)

    def loss(translators, tokens):
        by_layer = tuned_lens_loss(model, translators, tokens)
        return by_layer.sum(), by_layer

    def step(carry, tokens):
        translators, state = carry
        grads, by_layer = jax.grad(loss, has_aux=True)(translators, tokens)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(translators, updates), state), by_layer

    (found, _), losses = lax.scan(step, (start, optimizer.init(start)), batches)
    return found, losses  # type: ignore
