"""Wrong arguments of makers and mixers: the right value, or one line that names the argument."""

import inspect
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jattn
from jattn import masks
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import gated, mix, mixture, routed, short_convolution

M, H, B, T = 8, 2, 3, 4
WRONG: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2.0, 2.5, -0.5, math.nan, math.inf, 10**9, "two", "", [], [2],
    (), (2, 2), (0, 1), (1.5, 2), {"a": 1}, 2j, object(), len, np.float32(2.0), np.int64(2),
    np.array([1, 2]), np.ones(2),
]  # fmt: skip
NEVER: list[Any] = [math.nan, -math.inf, object(), len, {2}, 2j, slice(2)]  # no option's
OPTIONS = [
    (name, option)
    for name in zoo.names(kind="mixer")
    for option in inspect.signature(zoo.info(name).make).parameters
]


def line_of(call: Callable[[], Any]) -> str | None:
    """What a call says is wrong, in one line; None if nothing is. Other errors pass through."""
    try:
        call()
    except ValueError as error:
        said = str(error)
        return said if "\n" not in said else f"more than a line: {said}"
    return None


def maker(name: str, option: str, value: Any) -> Callable[[], Any]:
    mechanism = zoo.info(name)
    usual = {"dim": M, "heads": H, "causal": not mechanism.bidirectional}
    own = inspect.signature(mechanism.make).parameters
    chosen = {o: v for o, v in usual.items() if o in own} | {option: value}
    return lambda: zoo.make(name, **chosen)


@pytest.mark.parametrize("name", zoo.names())
def test_makers(plain_checks, name):
    """Whatever is given for an option, a maker makes a mixer or says that it is wrong."""
    for option in inspect.signature(zoo.info(name).make).parameters:
        for value in WRONG:
            said = line_of(maker(name, option, value))
            assert said is None or option in said, (option, value, said)
        silent = [value for value in NEVER if line_of(maker(name, option, value)) is None]
        assert not silent, (option, silent)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(OPTIONS), st.sampled_from(range(len(WRONG))))
def test_what_is_made_works(pair, index):
    """A mixer that a maker lets through takes tokens, or says how many it wants."""
    (name, option), value = pair, WRONG[index]
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        make = maker(name, option, value)
        if (isinstance(value, int) and value > 100) or line_of(make):
            return
        mixer = make()
        params = jax.eval_shape(mixer.init, jax.random.key(0))
        x = jax.ShapeDtypeStruct((B, T, int(value) if option == "dim" else M), jnp.float32)
        said = line_of(lambda: jax.eval_shape(mixer.apply, params, x))
        assert said is None or said.split(":")[0] in ("x", "documents", "query")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


ARRAYS: list[Any] = [
    *WRONG[1:], np.ones((B, T, M), int), np.ones((B, T, M), complex), np.ones((B, T, M + 1)),
    np.ones((B, T)), np.ones((B, T), bool), np.ones((B, T + 1), bool), np.ones((T, T), bool),
    np.ones((1, 1, 1, 1, T), bool), np.ones((B, 7, T, T), bool), np.zeros((B, 1, T, T)),
    np.full((B, T), np.nan), np.array("x"), masks.causal, masks.prefix(jnp.ones(7, int)),
    masks.segments(jnp.ones((B, T + 1), int)), masks.padding(np.ones((2, T), bool)),
]  # fmt: skip


@pytest.mark.parametrize("name", ["softmax_attention", "gated_delta_rule", "titans_memory"])
def test_arrays(plain_checks, name):
    mixer = zoo.make(name, dim=M, heads=H, causal=True)
    params = jax.eval_shape(mixer.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((B, T, M), jnp.float32)
    assert mixer.init_state is not None
    make_state = mixer.init_state

    def keyword(argument):
        return lambda value: jax.eval_shape(
            lambda p, x: mixer.apply(p, x, **{argument: value}), params, x
        )

    calls = {argument: keyword(argument) for argument in ("mask", "positions", "context", "key")}
    calls |= {
        "x": lambda value: jax.eval_shape(lambda p: mixer.apply(p, value), params),
        "params": lambda value: jax.eval_shape(lambda x: mixer.apply(value, x), x),
        "batch_size": lambda value: jax.eval_shape(lambda p: make_state(p, value, T), params),
        "max_length": lambda value: jax.eval_shape(lambda p: make_state(p, B, value), params),
    }
    for argument, call in calls.items():
        for value in ARRAYS:
            said = line_of(lambda call=call, value=value: call(value))
            assert said is None or said.startswith(argument), (argument, value, said)


def test_combinators(plain_checks):
    inner = zoo.make("softmax_attention", dim=M, heads=H)
    makers: dict[str, Callable[[Any], Any]] = {
        "dim": lambda value: mixture({"a": inner}, dim=value),
        "hidden": lambda value: mixture({"a": inner}, dim=M, hidden=value),
        "alpha": lambda value: mix(inner, inner, alpha=value),
        "width": lambda value: short_convolution(inner, width=value),
        "shared": lambda value: routed(inner, dim=M, heads=H, shared=value),
        "chosen": lambda value: routed(inner, dim=M, heads=H, chosen=value),
        "router": lambda value: routed(inner, dim=M, heads=H, router=value),
        "position": lambda value: gated(inner, dim=M, heads=H, position=value),
        "activation": lambda value: gated(inner, dim=M, heads=H, activation=value),
    }
    for argument, make in makers.items():
        for value in WRONG:
            said = line_of(lambda make=make, value=value: make(value))
            assert said is None or said.startswith(f"{argument}: expected"), (argument, value, said)


def test_names():
    assert "softmax" not in zoo.names()
    for alias, name in zoo.ALIASES.items():
        assert zoo.info(alias).name == zoo.info(alias.upper()).name == name
    for said, name in {
        "RetNet": "retention",
        "GLA": "gated_linear_attention",
        "Gated DeltaNet": "gated_delta_rule",
        "multi-head attention": "softmax_attention",
        "Softmax_Attention": "softmax_attention",
    }.items():
        assert zoo.info(said).name == name
        jattn.zoo.make(said, dim=M, heads=H, causal=True)


def test_parts_of_the_package():
    from jattn.zoo import make

    assert make is zoo.make
    for part in ("attend", "decode", "lens", "masks", "nn", "recur", "theory", "zoo"):
        assert part in dir(jattn)
        assert getattr(jattn, part) is not None
    project = tomllib.loads(Path(jattn.__file__).parents[1].joinpath("pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "jattn.__version__"
