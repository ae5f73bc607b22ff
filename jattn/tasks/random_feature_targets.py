"""A query and keys on the sphere, and functions of them that do not depend on the keys' order.

With beta a random unit vector and means over the N keys:

    keys_p          mean <beta, x_i>^p
    harm_p          the part of keys_p of degree p alone, p = 3 or 4:
                    mean of t^3 - 3 t / (d + 2), or of t^4 - 6 t^2 / (d + 4) + 3 / ((d+2)(d+4))
    corr_q          mean <x_0, x_i>^q <beta, x_i>
    corr_only_q     mean <x_0, x_i>^q
    mix_g           (1 - g) keys_2 + g corr_only_2, both first divided by their standard deviation
    turned_q_g      mean <x_0, S x_i>^q <beta, x_i>, S = (1 - g) I + g O, O a random rotation

`keys_p` needs no query at all, `corr_only_q` needs it alone; `mix_g` goes from one to the other;
`keys_p` of small d is mostly of lower degree (at d = 8 `keys_4` has 85 % of its variance in t^2),
which `harm_p` is not. `turned_q_g` starts at `corr_q` and moves the interaction away from the
identity.

Reference: arXiv 2307.11353 (the first three families, in its setting).
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Tokens(NamedTuple):
    """Queries `[b, d]` and their keys `[b, s, d]`."""

    query: Float[Array, "b d"]
    keys: Float[Array, "b s d"]


class Directions(NamedTuple):
    """What one draw of the targets depends on: beta `[d]` and the rotation O `[d, d]`."""

    beta: Float[Array, " d"]
    rotation: Float[Array, "d d"]


Target = Callable[[Tokens, Directions, Bool[Array, "b s"]], Float[Array, " b"]]


def sphere_tokens(key: jax.Array, count: int, keys: int, dim: int) -> Tokens:
    """Draws `count` queries with `keys` keys each, all independent and uniform on the sphere.

    Args:
        key: PRNG key.
        count: b.
        keys: N.
        dim: d.

    Returns:
        `Tokens` of unit vectors, float32.

    Raises:
        ValueError: a size below one.

    Reference:
        arXiv 2307.11353, in its setting.

    Example:
        >>> tokens = sphere_tokens(jax.random.key(0), 10, 4, 8)
        >>> tokens.keys.shape
        (10, 4, 8)
    """
    if min(count, keys, dim) < 1:
        raise ValueError(f"count, keys, dim: expected at least 1, got {count}, {keys}, {dim}")
    # In two dimensions: XLA takes ten times as long to compile the norms of three for a TPU.
    x = jax.random.normal(key, (count * (keys + 1), dim), jnp.float32)
    x = (x / jnp.linalg.norm(x, axis=-1, keepdims=True)).reshape(count, keys + 1, dim)
    return Tokens(x[:, 0], x[:, 1:])


def directions(key: jax.Array, dim: int) -> Directions:
    """Draws beta uniform on the sphere and O uniform among the rotations (and reflections).

    Args:
        key: PRNG key.
        dim: d.

    Example:
        >>> O = directions(jax.random.key(0), 4).rotation
        >>> bool(jnp.allclose(O @ O.T, jnp.eye(4), atol=1e-5))
        True
    """
    first, second = jax.random.split(key)
    beta = jax.random.normal(first, (dim,), jnp.float32)
    return Directions(
        beta / jnp.linalg.norm(beta), jax.random.orthogonal(second, dim, dtype=jnp.float32)
    )


def quadratic_variance(dim: int) -> float:
    """Variance of `<beta, x>^2` for x uniform on the sphere: `3 / (d (d+2)) - 1 / d^2`.

    Example:
        >>> quadratic_variance(2)
        0.125
    """
    return 3 / (dim * (dim + 2)) - 1 / dim**2


def harmonic(t: Float[Array, "*batch"], degree: int, dim: int) -> Float[Array, "*batch"]:
    """What t^degree has of this degree alone, t one component of a unit vector.

    Args:
        t: components.
        degree: 3 or 4.
        dim: d, size of the vectors.

    Example:
        >>> float(harmonic(jnp.array(1.0), 3, 1))
        0.0
    """
    if degree == 3:
        return t**3 - 3 * t / (dim + 2)
    return t**4 - 6 * t**2 / (dim + 4) + 3 / ((dim + 2) * (dim + 4))


def harmonic_share(dim: int) -> float:
    """The share of t^4's variance that `harmonic` of degree 4 has: what no quadratic explains.

    Example:
        >>> round(harmonic_share(8), 4)
        0.1463
    """
    second = 1 / dim
    fourth = second * 3 / (dim + 2)
    sixth = fourth * 5 / (dim + 4)
    eighth = sixth * 7 / (dim + 6)
    own = eighth - 6 * sixth / (dim + 4) + 3 * fourth / ((dim + 2) * (dim + 4))
    return own / (eighth - fourth**2)


_NUMBER = r"(\d+(?:\.\d+)?)"
_PATTERN = re.compile(
    rf"keys_(?P<keys>\d+)|harm_(?P<harm>[34])|corr_only_(?P<only>\d+)|corr_(?P<corr>\d+)"
    rf"|mix_(?P<mix>{_NUMBER})|turned_(?P<power>\d+)_(?P<turn>{_NUMBER})"
)


def target(name: str) -> Target:
    """The target function of that name.

    Args:
        name: of one of the families in the module's docstring, with its numbers:
            `"keys_2"`, `"corr_only_4"`, `"mix_0.25"`, `"turned_2_0.5"`.

    Returns:
        `f(tokens, directions, mask) -> [b]`; mask `[b, s]` marks the keys that count.

    Raises:
        ValueError: no such target.

    Example:
        >>> tokens = sphere_tokens(jax.random.key(0), 10, 4, 8)
        >>> mask = jnp.ones((10, 4), bool)
        >>> target("keys_2")(tokens, directions(jax.random.key(1), 8), mask).shape
        (10,)
    """
    found = _PATTERN.fullmatch(name)
    if not found:
        raise ValueError(
            "target: expected keys_P, harm_3, harm_4, corr_Q, corr_only_Q, mix_G or turned_Q_G "
            f"with numbers, got {name!r}"
        )
    numbers = {group: float(text) for group, text in found.groupdict().items() if text}

    def function(tokens: Tokens, directions: Directions, mask: Bool[Array, "b s"]):
        along = tokens.keys @ directions.beta
        turn = numbers.get("turn", 0.0)
        turned = (1 - turn) * tokens.keys + turn * tokens.keys @ directions.rotation.T
        score = jnp.einsum("bd,bsd->bs", tokens.query, turned)
        match numbers:
            case {"keys": power}:
                each = along ** int(power)
            case {"harm": power}:
                each = harmonic(along, int(power), tokens.query.shape[-1])
            case {"only": power}:
                each = score ** int(power)
            case {"corr": power} | {"power": power}:
                each = score ** int(power) * along
            case {"mix": share}:
                each = (1 - share) * along**2 + share * score**2
                # Both have this variance, given one key; its mean over keys scales alike.
                each = each / quadratic_variance(tokens.query.shape[-1]) ** 0.5
            case _:
                raise AssertionError(name)
        return jnp.sum(each, axis=-1, where=mask) / jnp.sum(mask, axis=-1)

    return function
