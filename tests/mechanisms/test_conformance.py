"""Every mechanism of the zoo passes `check_mechanism`. A new one is covered by being registered."""

import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jattn.mechanisms import zoo
from jattn.testing import check_mechanism, checks_of, flops, forms_of

CASES = [(name, form) for name in zoo.names() for form in forms_of(zoo.info(name))]
# Without jit every operation is a program to compile; for most mechanisms, that is left to `slow`.
EAGER = (
    *("softmax_attention", "linear_attention", "gated_delta_rule", "titans_memory"),
    *("squeeze_excitation", "set_pooling", "pointer_network"),
)


@pytest.fixture(autouse=True)
def _no_programs_of_others():
    """Drops a case's programs behind it, or a worker holds those of all."""
    yield
    jax.clear_caches()


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "causal"), CASES)
def test_conforms(name, causal):
    left_to_slow = () if name in EAGER else ("eager",)
    checks = [check for check in checks_of(zoo.info(name)) if check not in left_to_slow]
    check_mechanism(name, causal=causal, checks=checks)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "causal"), [case for case in CASES if case[0] not in EAGER])
def test_jit_changes_nothing(name, causal):
    check_mechanism(name, causal=causal, checks=["eager"])


@pytest.mark.parametrize("name", zoo.names())
def test_has_its_paper(name):
    mechanism = zoo.info(name)
    assert re.fullmatch(r"\d{4}\.\d{4,5}", mechanism.arxiv)
    assert mechanism.arxiv in (sys.modules[mechanism.make.__module__].__doc__ or "")


def test_unknown_name_is_answered_by_near_ones():
    with pytest.raises(ValueError, match=r"no 'linear_atention' in the zoo; .* linear_attention"):
        zoo.make("linear_atention", dim=8, heads=2)


def test_operations_are_counted_through_loops():
    """Against XLA where there is no loop, and n times the body where there is one."""
    a = jnp.ones((16, 16))

    def body(x):
        return x @ a

    def looped(x):
        return jax.lax.scan(lambda x, _: (body(x), None), x, length=10)[0]

    analysis: Any = jax.jit(body).lower(a).compile().cost_analysis()
    assert flops.count(body, a) == analysis["flops"]
    assert flops.count(looped, a) == 10 * flops.count(body, a)
    with pytest.raises(NotImplementedError, match="while loop"):
        flops.count(lambda n: jax.lax.fori_loop(0, n, lambda i, x: body(x), a), 3)
