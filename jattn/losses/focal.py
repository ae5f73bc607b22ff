"""Focal loss (Lin et al. 2017, arXiv 1708.02002): what is easy counts little."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_number, check_shape


def focal_loss(
    logits: Float[Array, "b k"],
    labels: Int[Array, " b"],
    *,
    alpha: Float[Array, " k"] | float = 1.0,
    gamma: float = 2.0,
) -> Float[Array, " b"]:
    """`-alpha (1 - p)^gamma log p`, p the probability of the label.

    Args:
        logits: of the classes.
        labels: the right ones.
        alpha: weight of each class, or of all.
        gamma: 0 is cross entropy; the larger, the less easy examples count.

    Returns:
        A loss for each example.

    Raises:
        ValueError: shapes that do not fit, or a negative gamma.

    Reference:
        arXiv 1708.02002; of sentence pairs, arXiv 2305.02374.

    Example:
        >>> round(float(focal_loss(jnp.zeros((1, 2)), jnp.array([0]))[0]), 4)
        0.1733
    """
    sizes: dict[str, int] = {}
    check_shape("logits", logits, "b k", sizes)
    check_shape("labels", labels, "b", sizes)
    check_number("gamma", gamma, least=0)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    weight = jnp.broadcast_to(jnp.asarray(alpha), (logits.shape[1],))[labels]
    # 1 - p, without cancellation where p is near 1.
    return -weight * (-jnp.expm1(chosen)) ** gamma * chosen
