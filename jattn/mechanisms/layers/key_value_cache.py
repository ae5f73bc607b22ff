"""The cache of keys and values that attention streams with."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int


class KeyValueCache(NamedTuple):
    """Keys and values of the tokens so far, in a buffer of fixed length.

    A ring keeps the last `s` tokens: token p lies at entry p modulo s. A window of s needs no more.

    Attributes:
        key: `[b, s, gk, d]`.
        value: `[b, s, gv, e]`.
        position: how many tokens have come.
    """

    key: Float[Array, "b s gk d"]
    value: Float[Array, "b s gv e"]
    position: Int[Array, ""]

    def append(
        self, key: Float[Array, "b gk d"], value: Float[Array, "b gv e"], ring: bool = False
    ) -> "KeyValueCache":
        """The cache with one more token.

        Raises:
            ValueError: it is full, and no ring. Under `jit`, where nothing can be raised, a token
                too many becomes NaN, and so does what sees it.
        """
        room, at = self.key.shape[1], self.position
        if ring:
            at = at % room
        elif not isinstance(at, Tracer) and at >= room:
            raise ValueError(f"state: expected room for one more token, all {room} are taken")
        # An update past the end would replace the last token.
        fits = at < room
        put = lambda buffer, x: lax.dynamic_update_slice_in_dim(
            buffer, jnp.where(fits, x, jnp.nan)[:, None].astype(buffer.dtype), at, axis=1
        )
        return KeyValueCache(put(self.key, key), put(self.value, value), self.position + 1)

    def fill(
        self,
        key: Float[Array, "b t gk d"],
        value: Float[Array, "b t gv e"],
        length: Any,
        ring: bool = False,
    ) -> "KeyValueCache":
        """An empty cache with the first tokens of a sequence in it, of which `length` are real.

        Raises:
            ValueError: more tokens than there is room for, and no ring.
        """
        room, given = self.key.shape[1], key.shape[1]
        position = jnp.asarray(length, self.position.dtype)
        if ring:
            held = self._replace(position=position).tokens(ring)
            put = lambda buffer, x: x[:, jnp.clip(held, 0, given - 1)].astype(buffer.dtype)
        else:
            if given > room:
                raise ValueError(f"x: expected at most the state's {room} tokens, got {given}")
            # What lies behind the real ones is hidden until a token is put there.
            put = lambda buffer, x: buffer.at[:, :given].set(x.astype(buffer.dtype))
        return KeyValueCache(put(self.key, key), put(self.value, value), position)

    def tokens(self, ring: bool = False) -> Int[Array, " s"]:
        """Which token each entry is for; one below 0, or one that has not come, is not there."""
        index = jnp.arange(self.key.shape[1], dtype=self.position.dtype)
        newest = self.position - 1
        return newest - (newest - index) % len(index) if ring else index

    def filled(self, ring: bool = False) -> Bool[Array, "1 1 1 s"]:
        """Marks the entries that hold tokens, as a mask for `attend`."""
        token = self.tokens(ring)
        return ((token >= 0) & (token < self.position))[None, None, None]


def key_value_cache(key: Any, value: Any, length: int) -> KeyValueCache:
    """An empty cache for `length` tokens.

    Args:
        key: what the keys of one token are like: an array or `jax.ShapeDtypeStruct` `[b, 1, g, d]`.
        value: the same of values, `[b, 1, g, e]`.
        length: s.
    """
    empty = lambda one: jnp.zeros((one.shape[0], length, *one.shape[2:]), one.dtype)
    return KeyValueCache(empty(key), empty(value), jnp.zeros((), jnp.int32))
