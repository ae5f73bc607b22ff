"""Dropout of attention weights, as a function of where a weight stands.

Whether a weight is dropped depends on the key, the batch entry, the head and the two indices alone.
So it is the same in whatever tiles a backend works, and the same forward and backward, and nothing
of the size `[t, s]` is kept.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jattn.checks import check_number, said

_SIGN = np.int32(-(2**31))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dropout:
    """What a backend needs to know.

    Attributes:
        rate: probability of a weight to be dropped; the others are divided by 1 - rate.
        words: two random words of each batch entry and head, `[2, b, h]`.
    """

    rate: float = dataclasses.field(metadata={"static": True})
    words: Int[Array, "2 b h"]


def make_dropout(rate: float, key: jax.Array | None, batch: int, heads: int) -> Dropout | None:
    """Checks the arguments of `attend`; None where nothing is dropped.

    Raises:
        ValueError: a rate outside [0, 1), a rate without a key, or something that is no key.
    """
    check_number("dropout_rate", rate, least=0)
    if not isinstance(rate, int | float | np.floating) or rate >= 1:
        raise ValueError(f"dropout_rate: expected a Python number in [0, 1), got {said(rate)}")
    if rate == 0:
        return None
    if key is None:
        raise ValueError("dropout_key: expected a key, as from jax.random.key, got None")
    try:
        bits = jax.random.bits(key, (2, batch, heads), jnp.uint32)
    except TypeError as error:
        raise ValueError(
            f"dropout_key: expected one key, as from jax.random.key, got {said(key)}"
        ) from error
    return Dropout(float(rate), jax.lax.bitcast_convert_type(bits, jnp.int32))


def kept(rate: float, words: tuple[Array, Array], q_index: Array, k_index: Array) -> Array:
    """What weights are multiplied by: 0, or 1 / (1 - rate); all arguments broadcast.

    The words, hashed with each index, are hashed once more together (32-bit finaliser of few
    multiplications and shifts, so that it costs a kernel little).
    """
    q_index, k_index = (jnp.asarray(x, jnp.int32) for x in (q_index, k_index))
    bits = _mix(_mix(words[0] + q_index * np.int32(-1640531527)) + _mix(words[1] ^ k_index))
    dropped = np.int32(int(rate * 2**32) - 2**31)
    return jnp.where(bits ^ _SIGN >= dropped, jnp.float32(1 / (1 - rate)), jnp.float32(0))


def _mix(x: Array) -> Array:
    """A bijection of 32-bit words in which every bit depends on all others."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x = (x ^ jax.lax.shift_right_logical(x, np.int32(shift))) * np.int32(factor)
    return x ^ jax.lax.shift_right_logical(x, np.int32(16))
