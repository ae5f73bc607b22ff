"""Adversarial training of attention: logits are moved where that hurts (or changes) most.

With a the logits before the softmax and n the real tokens of an example:

    AT    r = eps g / |g|,  g = d loss / d a                                 arXiv 2009.12064
    iAT   r = sum_k w_k d_k along d_tk = (a_k - a_t) / |a_. - a_t|, w = eps g_w / |g_w|
    VAT   r = eps g / |g|,  g = d KL(p(a) || p(a + xi d)) / d d at a random unit d   2104.08763
    iVAT  the same along the directions of iAT

AT and iAT need labels, VAT and iVAT none. The loss in training is L(a) + lambda L(a + r), or with
KL in place of the second; r counts as constant.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_number
from jattn.lens.methods.method import Method

KINDS = ("at", "iat", "vat", "ivat")


def attention_perturbation(
    function: Callable[[Float[Array, "b t"]], Float[Array, ""]],
    logits: Float[Array, "b t"],
    *,
    eps: float,
    kind: Literal["at", "iat", "vat", "ivat"] = "at",
    real: Bool[Array, "b t"] | None = None,
    xi: float = 0.1,
    steps: int = 1,
    key: jax.Array | None = None,
) -> Float[Array, "b t"]:
    """The perturbation r, a constant for gradients.

    Args:
        function: of logits `[b, t]`: the loss for `"at"` and `"iat"`, summed or averaged over
            examples; the divergence from the unperturbed prediction for `"vat"` and `"ivat"`.
        logits: a, where it is taken.
        eps: length of r of each example, over its real tokens.
        kind: which.
        real: False = padding, which is not moved; default all are real.
        xi: length of the probe of the two virtual ones.
        steps: of power iteration of those two.
        key: draws the probe of those two.

    Raises:
        ValueError: an unknown kind, or a virtual one without a key.
    """
    check_choice("kind", kind, KINDS)
    check_number("eps", eps, least=0)
    real = jnp.ones(logits.shape, bool) if real is None else real
    along: Any = lambda weights: weights
    shape = logits.shape
    if kind in ("iat", "ivat"):
        directions = _differences(logits, real)
        along = lambda weights: jnp.einsum("btk,btk->bt", directions, weights)
        shape = directions.shape
    free = real.reshape(*real.shape, *(1,) * (len(shape) - 2))
    moved = lambda weights: function(logits + along(jnp.where(free, weights, 0)))
    if kind in ("at", "iat"):
        probe = jnp.zeros(shape, logits.dtype)
        probe = _unit(jax.grad(moved)(probe))
    else:
        if key is None:
            raise ValueError(f"key: expected one for kind={kind!r}, got None")
        probe = jnp.where(free, jax.random.normal(key, shape, logits.dtype), 0)
        for _ in range(steps):
            probe = _unit(jax.grad(moved)(xi * _unit(probe)))
    return jax.lax.stop_gradient(jnp.where(real, along(eps * probe), 0))


def batch_difference_perturbation(
    function: Callable[[Float[Array, "b t"]], Float[Array, ""]],
    logits: Float[Array, "b t"],
    *,
    eps: float,
) -> Float[Array, "b t"]:
    """What the released code of iAT does instead, kept for reference: `r = -eps g / |g|`.

    Its differences are to the other examples of the batch and cancel out, and its step is along
    minus the gradient: it lowers the loss where it should raise it.
    """
    grad = jax.grad(function)(logits)
    return jax.lax.stop_gradient(-eps * _unit(grad))


def _differences(logits: Float[Array, "b t"], real: Bool[Array, "b t"]) -> Float[Array, "b t k"]:
    """Unit vectors from each token's logit to the others' of its example."""
    difference = logits[:, None, :] - logits[:, :, None]
    difference = jnp.where(real[:, None, :] & real[:, :, None], difference, 0)
    norm = jnp.linalg.norm(difference, axis=-1, keepdims=True)
    return difference / jnp.where(norm > 0, norm, 1)


def _unit(x: Array) -> Array:
    """Each example over its length; zeros stay."""
    axes = tuple(range(1, x.ndim))
    norm = jnp.sqrt((x**2).sum(axes, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1)


def _example(key):
    logits = jax.random.normal(key, (3, 5))
    loss = lambda a: -jax.nn.log_softmax(a, -1)[:, 0].sum()
    return dict(function=loss, logits=logits, eps=0.5)


VIRTUAL = Method(
    name="virtual_attention_perturbation",
    title="Making attention mechanisms more robust and interpretable with virtual adversarial "
    "training",
    arxiv="2104.08763",
    kind="training",
    function=attention_perturbation,
    example=lambda key: _example(key) | dict(kind="vat", key=key),
)
METHOD = Method(
    name="attention_perturbation",
    title="Attention meets perturbations: robust and interpretable attention with adversarial "
    "training",
    arxiv="2009.12064",
    kind="training",
    function=attention_perturbation,
    example=_example,
)
