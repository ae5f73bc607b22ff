"""Entries of the zoo: a published mechanism's names, its paper, and what it can do."""

import inspect
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

from jattn.checks import check_choice, check_flag

Kind = Literal["mixer", "gate", "pool", "pointer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
COSTS = ("linear", "n*w", "n log n", "quadratic")


class Mechanism(NamedTuple):
    """The entry of a published mechanism in the zoo; `jattn.testing` holds it to what it says.

    Attributes:
        name: the zoo's name for it.
        title: the name in words.
        arxiv: arXiv id of the paper, e.g. `"1706.03762"`.
        family: the folder it lives in: `"softmax"`, `"linear"`, ...
        equation: the mechanism in one line.
        core: the pure function on arrays: of query, key and value where it has them.
        make: `(dim, heads, causal, **options) -> Mixer`; makers of other kinds take `dim` and
            options, and give a `Gate`, `Pool` or `Pointer`.
        cost: FLOPs as a function of the length n: `"linear"`, `"n*w"`, `"n log n"` or
            `"quadratic"`.
        kind: what it maps to what: `"mixer"`, tokens to as many tokens; `"gate"`, features to
            the same features times factors; `"pool"`, tokens to a fixed number of them;
            `"pointer"`, queries to logits over tokens.
        causal: can be made causal: token t then depends on tokens <= t only. For mixers.
        bidirectional: can be made non-causal. For mixers.
        cross: can attend to a `context`. For mixers.
        streaming: has `init_state` and `step` when causal. For mixers.
        equivariant: tokens have no order (where a mixer is not causal): permuted tokens give
            outputs permuted alike, a pointer's logits permuted, a pool's outputs as they were.
        positioned: what it makes of two tokens depends on how far apart they are in `positions`, so
            that padding between them counts unless positions are given. For mixers.
        documents: in which forms packed documents are kept apart; in others it refuses a mask of
            them: `"always"`, `"causal"` or `"never"`. For mixers.
        parameters: names of parameters; of a mixer, those beyond query, key, value and output
            projections.
        statistics: those of them that are averages over training, which no gradient reaches.
        idle: those that get no gradient until others, which start at zero, have moved, or never;
            `"name/leaf"` says it of one leaf.
        absent: those of the query, key, value and output projections that a mixer does without.
    """

    name: str
    title: str
    arxiv: str
    family: str
    equation: str
    core: Callable[..., Any]
    make: Callable[..., Any]
    cost: str
    kind: Kind = "mixer"
    causal: bool = False
    bidirectional: bool = False
    cross: bool = False
    streaming: bool = False
    equivariant: bool = False
    positioned: bool = False
    documents: Literal["always", "causal", "never"] = "always"
    parameters: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def check_mechanism_fields(mechanism: Any) -> None:
    """Checks that an entry can be read by the zoo.

    Raises:
        ValueError: it is no `Mechanism`, or a field is not what it should be.

    Example:
        >>> from jattn.mechanisms import zoo
        >>> check_mechanism_fields(zoo.info("retention")._replace(kind="filter"))
        Traceback (most recent call last):
        ...
        ValueError: kind: expected one of 'mixer', 'gate', 'pool', 'pointer', got 'filter'
    """
    if not isinstance(mechanism, Mechanism):
        raise ValueError(f"mechanism: expected a Mechanism, got a {type(mechanism).__name__}")
    name = mechanism.name
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name: expected lower_case_words, got {name!r}")
    for field in ("title", "arxiv", "family", "equation"):
        if not isinstance(text := getattr(mechanism, field), str) or (
            not text and field != "arxiv"
        ):
            raise ValueError(f"{field}: expected a text, got {text!r}")
    for field in ("core", "make"):
        if not callable(getattr(mechanism, field)):
            raise ValueError(f"{field}: expected a function, got {getattr(mechanism, field)!r}")
    flags = ("causal", "bidirectional", "cross", "streaming", "equivariant", "positioned")
    for field in flags:
        check_flag(field, getattr(mechanism, field))
    check_choice("kind", mechanism.kind, KINDS)
    check_choice("cost", mechanism.cost, COSTS)
    check_choice("documents", mechanism.documents, ("always", "causal", "never"))
    if mechanism.kind == "mixer" and not (mechanism.causal or mechanism.bidirectional):
        raise ValueError(f"causal: {name} is neither causal nor bidirectional; expected either")
    for field in ("parameters", "statistics", "idle", "absent"):
        names = getattr(mechanism, field)
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"{field}: expected a tuple of names, got {names!r}")


def options_of(mechanism: Mechanism) -> tuple[str, ...]:
    """Lists a mechanism's own options, beyond dim, heads and causal."""
    parameters = inspect.signature(mechanism.make).parameters
    return tuple(p for p in parameters if p not in ("dim", "heads", "causal"))


def build(
    mechanism: Mechanism, *, dim: int, heads: int | None = None, causal: bool = False, **chosen: Any
) -> Any:
    """Makes the pure functions of a mechanism, whether or not it is in the zoo: see `zoo.make`.

    Raises:
        ValueError: an unknown option, a form that it has not, or a size that does not fit.
    """
    name, mixes = mechanism.name, mechanism.kind == "mixer"
    check_flag("causal", causal)
    for option in chosen:
        if option not in options_of(mechanism):
            known = ", ".join(options_of(mechanism)) or "none"
            raise ValueError(f"{name}: unknown option {option!r}; it has {known}")
    if not mixes:
        if causal:
            raise ValueError(f"causal: {name} is a {mechanism.kind}; pass causal=False")
        if heads is not None and "heads" not in inspect.signature(mechanism.make).parameters:
            raise ValueError(f"heads: {name} has none; leave them out")
        return mechanism.make(dim=dim, **({} if heads is None else {"heads": heads}), **chosen)
    if causal and not mechanism.causal:
        raise ValueError(f"causal: {name} has no causal form; pass causal=False")
    if not causal and not mechanism.bidirectional:
        raise ValueError(f"causal: {name} has only a causal form; pass causal=True")
    return mechanism.make(dim=dim, heads=heads, causal=causal, **chosen)
