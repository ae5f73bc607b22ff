"""Gates, pools and pointers: mechanisms that are no token mixers, as pure functions.

Their makers take `dim`, and options of their own. As everywhere, padding changes nothing: what is
in it, NaN included, gives and gets no gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jaxtyping import Array, Bool, Float

from jattn.mechanisms.mixer import Params


class Gating(Protocol):
    """`(params, x) -> y`, over tokens `[b, t, m]`, images `[b, y, x, m]` or any other space."""

    def __call__(
        self,
        params: Params,
        x: Float[Array, "b *space m"],
        /,
        *,
        mask: Bool[Array, " b *space"] | None = None,
    ) -> Float[Array, "b *space m"]: ...


class Gate(NamedTuple):
    """Features times factors that the features themselves give.

    Attributes:
        init: `(key) -> params`, a plain pytree of named arrays.
        apply: `(params, x, *, mask) -> y`, `x * factors`, of the shape and dtype of x: tokens
            `[b, t, m]`, images `[b, y, x, m]`. `mask` `[b, t]` or `[b, y, x]` is True where x is
            real; padding gives zeros.
        factors: `(params, x, *, mask) -> factors`, of x's axes, 1 long where factors are shared.
        train: `(params, x, *, mask) -> (y, statistics)`, normalised over the batch, with the next
            value of `params["statistics"]`; None where no norm is over the batch.
    """

    init: Callable[[jax.Array], Params]
    apply: Gating
    factors: Gating
    train: Callable[..., tuple[Array, Any]] | None = None


class Pooling(Protocol):
    """`(params, x) -> y`, any number of tokens into k."""

    def __call__(
        self,
        params: Params,
        x: Float[Array, "b n m"],
        /,
        *,
        mask: Bool[Array, "b n"] | None = None,
    ) -> Float[Array, "b k e"]: ...


class Pool(NamedTuple):
    """Any number of tokens into a fixed number of them.

    Attributes:
        init: `(key) -> params`, a plain pytree of named arrays.
        apply: `(params, x, *, mask) -> y`, `[b, n, m] -> [b, k, m]`, of x's dtype. `mask` `[b, n]`
            is True for real tokens; rows that have none give finite numbers.
        train: `(params, x, *, mask) -> (y, statistics)`, as that of a `Gate`.
    """

    init: Callable[[jax.Array], Params]
    apply: Pooling
    train: Callable[..., tuple[Array, Any]] | None = None


class Pointing(Protocol):
    """`(params, query, tokens) -> logits`, a distribution over the tokens for each query."""

    def __call__(
        self,
        params: Params,
        query: Float[Array, "b t m"],
        tokens: Float[Array, "b s m"],
        /,
        *,
        mask: Bool[Array, "b s"] | None = None,
    ) -> Float[Array, "b t s"]: ...


class Pointer(NamedTuple):
    """Logits of pointing at each of the tokens: attention's scores as an output.

    Attributes:
        init: `(key) -> params`, a plain pytree of named arrays.
        apply: `(params, query, tokens, *, mask) -> logits`, `[b, t, m], [b, s, m] -> [b, t, s]`, of
            the dtype of the query. `mask` `[b, s]` is True for real tokens; others get -inf, a
            probability of exactly 0, in every row that has a real one.
    """

    init: Callable[[jax.Array], Params]
    apply: Pointing
