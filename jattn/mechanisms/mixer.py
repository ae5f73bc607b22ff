"""What a mechanism is: a pair of pure functions, and a card that says what it can do."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jaxtyping import Array, Float, Int, PyTree

Params = PyTree[Array]


class Apply(Protocol):
    """`(params, x) -> y`, the whole sequence at once."""

    def __call__(
        self,
        params: Params,
        x: Float[Array, "b t m"],
        /,
        *,
        context: Float[Array, "b s m"] | None = None,
        mask: Any = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b t m"]: ...


class Mixer(NamedTuple):
    """A token mixer as pure functions; compare `optax.GradientTransformation`.

    Attributes:
        init: `(key) -> params`, a plain pytree of named arrays.
        apply: `(params, x, *, context, mask, positions, key) -> y`, `[b, t, m] -> [b, t, m]`.
            `context` `[b, s, m]` is what to attend to (None: `x` itself). `mask` is either a bool
            array `[b, s]` (True = a real token, False = padding) or, for mechanisms over the
            softmax-like engine, a `jattn.masks.Mask` or a bool array `[b, h, t, s]`. `positions`
            `[b, t]` are for mechanisms that use them (default 0, 1, 2, ...). `key` is for those
            that draw random numbers.
        init_state: `(params, batch_size, max_length) -> state`, an empty streaming state; None
            where the mechanism has no causal step form.
        step: `(params, x, state) -> (y, state)`, one token `[b, m] -> [b, m]`.
    """

    init: Callable[[jax.Array], Params]
    apply: Apply
    init_state: Callable[[Params, int, int], Any] | None = None
    step: Callable[[Params, Float[Array, "b m"], Any], tuple[Float[Array, "b m"], Any]] | None = (
        None
    )


class Mechanism(NamedTuple):
    """The card of a published mechanism. Tests enforce what it says.

    Attributes:
        name: the zoo's name for it.
        title: the name in words.
        arxiv: arXiv id of the paper, e.g. `"1706.03762"`.
        family: the folder it lives in: `"softmax"`, `"linear"`, ...
        equation: the mechanism in one line.
        core: the pure function on query, key and value arrays.
        make: `(dim, heads, causal, **options) -> Mixer`.
        causal: can be made causal: token t then depends on tokens <= t only.
        bidirectional: can be made non-causal.
        cross: can attend to a `context`.
        streaming: has `init_state` and `step` when causal.
        cost: FLOPs as a function of the length n: `"quadratic"`, `"linear"`, `"n*w"`, ...
        layout: `"btm"` (tokens) or `"bhwc"` (images).
        parameters: names of parameters beyond query, key, value and output projections.
        statistics: those of them that are averages over training, which no gradient reaches.
        absent: those of the query, key, value and output projections that it does without.
    """

    name: str
    title: str
    arxiv: str
    family: str
    equation: str
    core: Callable[..., Any]
    make: Callable[..., Mixer]
    causal: bool
    bidirectional: bool
    cross: bool
    streaming: bool
    cost: str
    layout: str = "btm"
    parameters: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
