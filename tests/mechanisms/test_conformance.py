"""What every member of the zoo must do. A new member is covered by being registered."""

import functools
import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from tests.mechanisms import flops

B, T, M, H = 2, 6, 8, 2
CASES = [
    (name, causal)
    for name in zoo.names()
    for causal in (False, True)
    if (zoo.info(name).causal if causal else zoo.info(name).bidirectional)
]
EAGER = ("softmax_attention", "linear_attention", "gated_delta_rule", "titans_memory")
every_member = pytest.mark.parametrize("name", zoo.names())
every_case = pytest.mark.parametrize(("name", "causal"), CASES)

# Bounds of log2(operations at 2n / operations at n), by the trait `cost`. Projections are linear,
# which takes a little off the quadratic ones.
GROWTH = {"linear": (0.95, 1.05), "n*w": (0.95, 1.1), "n log n": (1.0, 1.4), "quadratic": (1.8, 2)}


@functools.cache
@jax.enable_x64(False)  # whichever test comes first, the draws are the same
def case(name: str, causal: bool) -> Any:
    """A mixer with parameters, an input, its output, and a jitted loss with gradients."""
    mixer = zoo.make(name, dim=M, heads=H, causal=causal)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, T, M))
    weight = jax.random.normal(jax.random.key(2), (B, T, M))

    def loss(params, x):
        y = mixer.apply(params, x)
        return (weight.astype(x.dtype) * y).sum().astype(jnp.float32), y

    def apply(params, x, **keywords):
        return mixer.apply(params, x, **keywords)

    made = SimpleNamespace(mixer=mixer, params=params, x=x, apply=jax.jit(apply))
    made.gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    made.y = made.apply(params, x)
    return made


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


@every_member
def test_card(name):
    card = zoo.info(name)
    assert card.name == name
    assert re.fullmatch(r"\d{4}\.\d{4,5}", card.arxiv)
    assert card.arxiv in (sys.modules[card.make.__module__].__doc__ or "")
    assert card.causal or card.bidirectional
    params = case(name, not card.bidirectional).params
    named = {"query", "key", "value", "output", *card.parameters}
    assert named.issuperset(card.absent)
    assert set(params) == named - set(card.absent)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))


@pytest.mark.smoke
@every_case
def test_shape_type_and_finite_gradients(name, causal):
    c = case(name, causal)
    for dtype in (jnp.float32, jnp.bfloat16):
        (_, y), gradients = c.gradient(c.params, c.x.astype(dtype))
        assert (y.shape, y.dtype) == ((B, T, M), dtype)
        for leaf in (y, *jax.tree.leaves(gradients)):
            assert np.isfinite(np.asarray(leaf, np.float32)).all()
        for parameter in zoo.info(name).statistics:
            assert not np.any(np.asarray(gradients[0].pop(parameter), np.float32))
        assert all(np.any(np.asarray(g, np.float32)) for g in jax.tree.leaves(gradients))
        close(y.astype(jnp.float32), c.y, 2e-5 if dtype == jnp.float32 else 0.1)


# Without jit every operation is a program to compile; for most members, that is left to `slow`.
@pytest.mark.parametrize(
    ("name", "causal"),
    [c if c[0] in EAGER else pytest.param(*c, marks=pytest.mark.slow) for c in CASES],
)
def test_jit_changes_nothing(name, causal):
    c = case(name, causal)
    close(c.mixer.apply(c.params, c.x), c.y)


@every_case
def test_vmap_changes_nothing(name, causal):
    c = case(name, causal)
    xs = jnp.stack([c.x, 2 - c.x])
    ys = jax.jit(jax.vmap(c.mixer.apply, in_axes=(None, 0)))(c.params, xs)
    close(ys, jnp.stack([c.y, c.apply(c.params, 2 - c.x)]))


@every_case
def test_the_past_does_not_see_the_future_if_causal(name, causal):
    c = case(name, causal)
    t = 3
    y = c.apply(c.params, c.x.at[:, t].add(1.0))
    changed = np.abs(np.asarray(y - c.y)).max((0, 2)) > 1e-6
    assert changed[t:].any()
    assert changed[:t].any() != causal


@every_case
def test_padding_is_not_seen(name, causal):
    c = case(name, causal)
    holes = jnp.array([[True] * T, [True, True, False, True, True, False]])
    y = c.apply(c.params, c.x, mask=holes)
    other = c.apply(c.params, jnp.where(holes[..., None], c.x, 7.0), mask=holes)
    close(jnp.where(holes[..., None], other, 0), jnp.where(holes[..., None], y, 0), 1e-6)
    short = T - 2
    y = c.apply(c.params, c.x, mask=jnp.broadcast_to(jnp.arange(T) < short, (B, T)))
    close(y[:, :short], c.apply(c.params, c.x[:, :short]))


@pytest.mark.smoke
@pytest.mark.parametrize("name", [n for n in zoo.names() if zoo.info(n).streaming])
def test_steps_are_the_whole(name):
    c = case(name, True)

    @jax.jit
    def decode(params, x):
        state = c.mixer.init_state(params, B, T)

        def step(state, token):
            y, state = c.mixer.step(params, token, state)
            return state, y

        return jnp.moveaxis(jax.lax.scan(step, state, jnp.moveaxis(x, 1, 0))[1], 0, 1)

    close(decode(c.params, c.x), c.y)


@every_member
def test_streaming_is_as_the_card_says(name):
    card = zoo.info(name)
    if card.causal:
        mixer = case(name, True).mixer
        assert (mixer.step is not None) == (mixer.init_state is not None) == card.streaming


@every_member
def test_context(name):
    card = zoo.info(name)
    c = case(name, not card.bidirectional)
    context = jax.random.normal(jax.random.key(3), (B, T - 2, M))
    if not card.cross:
        with pytest.raises(ValueError, match="context: "):
            c.apply(c.params, c.x, context=context)
        return
    y = c.apply(c.params, c.x, context=context)
    assert y.shape == (B, T, M)
    assert np.abs(np.asarray(y - c.y)).max() > 1e-3
    close(c.apply(c.params, c.x, context=c.x), c.y)
    mask = jnp.broadcast_to(jnp.arange(T - 2) < 2, (B, T - 2))
    close(
        c.apply(c.params, c.x, context=context, mask=mask),
        c.apply(c.params, c.x, context=context[:, :2]),
    )


@every_case
def test_operations_grow_as_the_card_says(name, causal):
    c = case(name, causal)
    once, twice = (
        flops.count(c.mixer.apply, c.params, jax.ShapeDtypeStruct((1, n, M), jnp.float32))
        for n in (128, 256)
    )
    low, high = GROWTH[zoo.info(name).cost]
    assert low <= math.log2(twice / once) <= high


@every_case
def test_gradients_are_those_of_differences(x64, name, causal):
    c = case(name, causal)
    point = jax.tree.map(lambda p: p.astype(jnp.float64), (c.params, c.x))
    leaves, tree = jax.tree.flatten(point)
    rng = np.random.default_rng(0)
    direction = tree.unflatten([jnp.asarray(rng.standard_normal(p.shape)) for p in leaves])
    for parameter in zoo.info(name).statistics:
        direction[0][parameter] = jnp.zeros_like(direction[0][parameter])

    def along(size):
        return c.gradient(*jax.tree.map(lambda p, d: p + size * d, point, direction))

    def value(size):
        (_, y), _ = along(size)
        return float((weight * y).sum())

    weight = jax.random.normal(jax.random.key(2), (B, T, M), jnp.float32).astype(jnp.float64)
    (_, y), gradient = along(0.0)
    assert y.dtype == jnp.float64
    slope = sum(
        float((g * d).sum())
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    measured = (value(1e-6) - value(-1e-6)) / 2e-6
    assert slope == pytest.approx(measured, rel=1e-6, abs=1e-7)


@every_member
def test_bad_input_is_named(plain_checks, name):
    card = zoo.info(name)
    causal = not card.bidirectional
    c = case(name, causal)
    for argument, call in {
        r"x: expected 3 axes \[b, t, m\], got shape \[6, 8\]": lambda: c.apply(c.params, c.x[0]),
        r"x: expected shape \[.*m=8\], got \[2, 6, 7\]": lambda: c.apply(c.params, c.x[..., 1:]),
        r"mask: expected shape \[b=2, s=6\], got \[2, 5\]": lambda: c.apply(
            c.params, c.x, mask=jnp.ones((B, T - 1), bool)
        ),
        r"heads: expected a divisor of dim=8, got 3": lambda: zoo.make(
            name, dim=M, heads=3, causal=causal
        ),
        f"{name}: unknown option 'colour'; it has ": lambda: zoo.make(
            name, dim=M, heads=H, causal=causal, colour="red"
        ),
    }.items():
        with pytest.raises(ValueError, match=argument):
            call()
    if not (card.causal and card.bidirectional):
        with pytest.raises(ValueError, match="causal: "):
            zoo.make(name, dim=M, heads=H, causal=not causal)


def test_unknown_name_is_answered_by_near_ones():
    with pytest.raises(ValueError, match=r"no 'linear_atention' in the zoo; .* linear_attention"):
        zoo.make("linear_atention", dim=M, heads=H)


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
