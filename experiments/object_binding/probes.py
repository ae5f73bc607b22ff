"""Four probes of pairs of patches, trained side by side: linear, diagonal, quadratic, by class."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jattn.lens.object_binding import same_class_probability, same_object, symmetric
from jattn.training import Paper

PAPER = Paper("arXiv 2510.24709", "Does object binding naturally emerge in large ViTs?")
LINEAR, DIAGONAL, QUADRATIC, CLASS = PROBES = ("linear", "diagonal", "quadratic", "class")


def init(key: jax.Array, dim: int, classes: int) -> dict[str, Array]:
    """Weights of all four, and their biases."""
    of_linear, of_diagonal, of_quadratic, of_class = jax.random.split(key, 4)
    scale = dim**-0.5
    return {
        LINEAR: scale * jax.random.normal(of_linear, (dim,)),
        DIAGONAL: scale * jax.random.normal(of_diagonal, (dim,)),
        QUADRATIC: scale * jax.random.normal(of_quadratic, (dim, dim)),
        CLASS: scale * jax.random.normal(of_class, (dim, classes)),
        "class_bias": jnp.zeros(classes),
        "biases": jnp.zeros(3),
    }


def pair_logits(params: dict[str, Array], x: Float[Array, "b n c"]) -> dict[str, Array]:
    """The logit of "the same object" of every pair, `[b, n, n]`, by the first three.

    What `lens.object_binding.pairwise` gives, without an array of all pairs of vectors.
    """
    one = x @ params[LINEAR]
    own = {
        LINEAR: one[:, :, None] + one[:, None, :],
        DIAGONAL: jnp.einsum("bnc,bkc->bnk", x * params[DIAGONAL], x),
        QUADRATIC: jnp.einsum("bnc,bkc->bnk", x @ symmetric(params[QUADRATIC]), x),
    }
    scale = (2.0, 1.0, 1.0)  # the linear probe has the bias of either
    return {
        name: logits + s * b
        for (name, logits), s, b in zip(own.items(), scale, params["biases"], strict=True)
    }


def shares(real: Bool[Array, "b n"], same: Bool[Array, "b n n"]) -> Float[Array, "b n n"]:
    """Weights of pairs of real patches by which equal and unequal ones count half each."""
    pairs = (real[:, :, None] & real[:, None, :]).astype(jnp.float32)
    equal, other = pairs * same, pairs * ~same
    return 0.5 * equal / jnp.maximum(equal.sum(), 1) + 0.5 * other / jnp.maximum(other.sum(), 1)


def loss(
    params: dict[str, Array],
    x: Float[Array, "b n c"],
    objects: Int[Array, "b n"],
    classes: Int[Array, "b n"],
) -> Float[Array, ""]:
    """Sum of the probes' cross entropies; objects and classes of -1 do not count."""
    real, same = objects >= 0, same_object(objects)
    weight = shares(real, same)
    total = jnp.zeros(())
    for logits in pair_logits(params, x).values():
        total = total + (optax.sigmoid_binary_cross_entropy(logits, same) * weight).sum()
    own = optax.softmax_cross_entropy_with_integer_labels(
        x @ params[CLASS] + params["class_bias"], jnp.maximum(classes, 0)
    )
    return total + (own * real).sum() / jnp.maximum(real.sum(), 1)


def accuracies(
    params: dict[str, Array], x: Float[Array, "b n c"], objects: Int[Array, "b n"]
) -> dict[str, Float[Array, ""]]:
    """Mean of the shares of equal and of unequal pairs that each probe tells; a guess has 1/2."""
    same = same_object(objects)
    weight = shares(objects >= 0, same)
    said = {name: logits > 0 for name, logits in pair_logits(params, x).items()}
    kinds = jax.nn.softmax(x @ params[CLASS] + params["class_bias"])
    said[CLASS] = same_class_probability(kinds) > 0.5
    return {name: ((answer == same) * weight).sum() for name, answer in said.items()}
