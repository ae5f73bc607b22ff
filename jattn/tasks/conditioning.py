"""Conditioning: random stimuli, and the classical protocols as streams of trials.

Reference: arXiv 2508.08289; Rescorla and Wagner 1972.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.checks import check_choice

PROTOCOLS = (
    "acquisition",
    "extinction",
    "blocking",
    "blocking_control",
    "overshadowing",
    "latent_inhibition",
    "rebinding",
)
STIMULI = ("A", "B")


class Protocol(NamedTuple):
    """Trials in order, over the stimuli `STIMULI`.

    Attributes:
        cs: which stimuli a trial presents, `[trials, stimuli]`, 0 or 1.
        us: what follows, `[trials, outcomes]`; `[1, 0]` is the outcome, `[0, 1]` another one.
    """

    cs: Float[np.ndarray, "trials stimuli"]
    us: Float[np.ndarray, "trials outcomes"]


def protocol(name: str, trials: int = 10) -> Protocol:
    """The trials of a classical protocol.

        acquisition        A+                        rebinding          A+, then A with another US
        extinction         A+, then A alone          overshadowing      AB+
        latent_inhibition  A alone, then A+          blocking           A+, then AB+
                                                     blocking_control   AB+ (and nothing before)

    `+` marks the unconditioned stimulus. Each phase has `trials` trials. Second-order
    conditioning, B -> A and A -> US, takes two memories; see `chain`.

    Args:
        name: one of `PROTOCOLS`.
        trials: trials a phase.

    Raises:
        ValueError: an unknown name, or no trials.

    Example:
        >>> blocking = protocol("blocking", trials=2)
        >>> blocking.cs.tolist()
        [[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
        >>> blocking.us[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    check_choice("name", name, PROTOCOLS)
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
    only_a, both = (1.0, 0.0), (1.0, 1.0)
    none, first, second = (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)
    phases = {
        "acquisition": [(only_a, first)],
        "extinction": [(only_a, first), (only_a, none)],
        "latent_inhibition": [(only_a, none), (only_a, first)],
        "rebinding": [(only_a, first), (only_a, second)],
        "overshadowing": [(both, first)],
        "blocking": [(only_a, first), (both, first)],
        "blocking_control": [(both, first)],
    }[name]
    cs, us = (np.repeat(np.array(rows), trials, axis=0) for rows in zip(*phases, strict=True))
    return Protocol(cs, us)


def sphere(key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Independent vectors, uniform on the unit sphere of the last axis.

    Example:
        >>> float(jnp.linalg.norm(sphere(jax.random.key(0), (8,))).round(5))
        1.0
    """
    x = jax.random.normal(key, shape)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def correlated_sphere(
    key: jax.Array, shape: tuple[int, ...], rho: float | Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Unit vectors `sqrt(rho) c + sqrt(1 - rho) u_i`, c and u_i orthogonal unit vectors.

    The direction c is common to all, so that two vectors have a cosine of mean rho and variance
    `(1 - rho)^2 / (d - 1)`.

    Example:
        >>> x = correlated_sphere(jax.random.key(0), (100, 64), 0.3)
        >>> bool(abs((x @ x.T).mean() - 0.3) < 0.02)
        True
    """
    first, second = jax.random.split(key)
    common = sphere(first, shape[-1:])
    own = jax.random.normal(second, shape)
    own = own - (own @ common)[..., None] * common
    own = own / jnp.linalg.norm(own, axis=-1, keepdims=True)
    return jnp.sqrt(rho) * common + jnp.sqrt(1 - rho) * own


def chain(
    key: jax.Array, *, pairs: int, layers: int, heads: int, d_k: int
) -> tuple[Float[Array, "items pairs d"], Float[Array, "layers heads pairs d"]]:
    """Chains of associations: in each layer, item i of one list is filed with item i of the next.

    Args:
        key: of the draw.
        pairs: items a list.
        layers: memories in a row; there are `layers + 1` lists of items.
        heads: memories side by side, each with codes of its own for the same items.
        d_k: dimension.

    Returns:
        The items, unit vectors `[layers + 1, pairs, d]`; and their codes in every head, `[layers,
        heads, pairs, d]`, those of the first head being the items themselves.

    Example:
        >>> items, codes = chain(jax.random.key(0), pairs=5, layers=2, heads=3, d_k=8)
        >>> items.shape, codes.shape
        ((3, 5, 8), (2, 3, 5, 8))
    """
    first, second = jax.random.split(key)
    items = sphere(first, (layers + 1, pairs, d_k))
    others = sphere(second, (layers, heads - 1, pairs, d_k))
    return items, jnp.concatenate([items[:-1, None], others], axis=1)
