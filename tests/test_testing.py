"""`check_mechanism` finds what is wrong, and says of which mechanism and in which check."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.core import Tracer

from jattn.mechanisms import zoo
from jattn.testing import check_mechanism, checks_of

SIGMOID, GATE = zoo.info("sigmoid_attention"), zoo.info("squeeze_excitation")
POOL, POINTER = zoo.info("set_pooling"), zoo.info("pointer_network")
BASE = {m.kind: m for m in (SIGMOID, GATE, POOL, POINTER)}


def with_apply(kind, change, **fields):
    """A mechanism whose `apply` is changed: `change(apply, params, *inputs, **keywords) -> y`."""

    def make(**options):
        made = BASE[kind].make(**options)
        return made._replace(apply=lambda *args, **keywords: change(made.apply, *args, **keywords))

    return BASE[kind]._replace(name="mine", make=make, **fields)


def doubled_in_eager(apply, params, x, **keywords):
    y = apply(params, x, **keywords)
    return y if isinstance(y, Tracer) else 2 * y


def of_whole_batch(apply, params, x, **keywords):
    return apply(params, x, **keywords) + x.mean()


def sees_padding(apply, params, x, mask=None, **keywords):
    return apply(params, x, mask=mask, **keywords) + (0 if mask is None else 1e-3 * x.sum())


def sees_the_last(apply, params, x, **keywords):
    return apply(params, x, **keywords) + x[:, -1:]


def as_float32(apply, params, *x, **keywords):
    return apply(params, *x, **keywords).astype(jnp.float32)


def rounded(apply, params, *x, **keywords):
    y = apply(params, *x, **keywords)
    return jax.lax.stop_gradient(jnp.round(y, 2) - y) + y


def quadratic(apply, params, x, **keywords):
    return apply(params, x, **keywords) + 0 * (x @ x.swapaxes(1, 2) @ x)


def without_stop(apply, params, query, tokens, mask=None):
    return jnp.nan_to_num(apply(params, query, tokens, mask=mask), neginf=-9.0)


def zero_gradient(apply, params, *x, **keywords):
    return apply(jax.lax.stop_gradient(params), *x, **keywords)


def names_nothing(apply, params, x, **keywords):
    return apply(params, jnp.pad(x, ((0, 0), (0, 0), (0, 8 - x.shape[-1]))), **keywords)


def fewer(apply, params, x, **keywords):
    return apply(params, x, **keywords)[:, : x.shape[1]]


def ungated(apply, params, x, **keywords):
    return 2 * apply(params, x, **keywords)


def by_order(apply, params, *x, **keywords):
    *before, tokens = x
    turns = jnp.linspace(1, 2, tokens.shape[1])[:, None].astype(tokens.dtype)
    return apply(params, *before, tokens * turns, **keywords)


@pytest.mark.parametrize(
    ("mechanism", "check"),
    [
        (with_apply("mixer", doubled_in_eager), "eager"),
        (with_apply("mixer", sees_padding), "padding"),
        (with_apply("mixer", sees_the_last), "causality"),
        (with_apply("mixer", as_float32), "shapes_types_and_gradients"),
        (with_apply("mixer", zero_gradient), "shapes_types_and_gradients"),
        (with_apply("mixer", rounded), "differences"),
        (with_apply("mixer", by_order), "steps"),
        (with_apply("mixer", names_nothing), "bad_input"),
        (SIGMOID._replace(cross=False), "context"),
        (SIGMOID._replace(streaming=False), "steps"),
        (SIGMOID._replace(cost="linear"), "operations"),
        (SIGMOID._replace(documents="never"), "documents"),
        (SIGMOID._replace(parameters=("gate",)), "parameters"),
        (GATE._replace(equivariant=False), "order"),
        (with_apply("gate", quadratic), "operations"),
        (with_apply("gate", ungated), "gated"),
        (with_apply("gate", of_whole_batch), "gated"),
        (with_apply("pool", by_order), "order"),
        (with_apply("pool", as_float32), "shapes_types_and_gradients"),
        (with_apply("pool", sees_padding), "padding"),
        (with_apply("pointer", without_stop), "pointed"),
        (with_apply("pointer", by_order), "order"),
        (POINTER._replace(parameters=("query",)), "parameters"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_what_is_wrong_is_found(mechanism, check):
    causal = True if check in ("causality", "steps") else None
    with pytest.raises(AssertionError, match=rf"^{mechanism.name}.*: {check}: "):
        check_mechanism(mechanism, causal=causal, checks=[check])


def test_no_check_holds_of_what_cannot_be_made(plain_checks):
    def make(**options):
        raise RuntimeError("no such thing")

    with pytest.raises(AssertionError, match=r"mine: init: RuntimeError: no such thing"):
        check_mechanism(GATE._replace(name="mine", make=make))


def test_wrong_questions_are_answered_in_a_line(plain_checks):
    wrong: Any = 3
    with pytest.raises(ValueError, match=r"checks: expected one of 'bad_input', .* got 'speed'"):
        check_mechanism("retention", checks=["speed"])
    with pytest.raises(ValueError, match="causal: expected one of True, got False"):
        check_mechanism("retention", causal=False)
    with pytest.raises(ValueError, match="mechanism: expected a Mechanism, got a int"):
        check_mechanism(wrong)
    assert "steps" in checks_of(SIGMOID)
    assert "steps" not in checks_of(GATE)


def test_needs_no_pytest():
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from jattn.testing import check_mechanism\n"
        "check_mechanism('squeeze_excitation', checks=['gated', 'padding'])"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
