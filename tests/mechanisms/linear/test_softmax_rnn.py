"""Softmax taken apart and put together again: its variants, and its orders as recurrences."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.linear import taylor_attention
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.linear.softmax_rnn import taylor_rnn
from jattn.mechanisms.linear.softmax_variants import (
    VARIANTS,
    Variant,
    softmax_variant,
    taylor_exp,
)
from jattn.recurrence.feature_maps import taylor_features

B, T, H, D, E = 2, 7, 2, 4, 3
PARTS = ("numerator", "order", "clamp", "normalizer", "post")
variant_of = jax.jit(softmax_variant, static_argnames=PARTS)
rnn = jax.jit(
    taylor_rnn, static_argnums=3, static_argnames=("normalizer", "causal", "return_state")
)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    return draw(B, T, H, D), draw(B, T, H, D), draw(B, T, H, E)


@pytest.fixture
def gates():
    rng = np.random.default_rng(1)
    return {name: rng.uniform(0.1, 0.9, (B, T, H)) for name in ("in_gate", "out_gate")}


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def unit(x):
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length == 0, 1, length)


def dense(query, key, value, variant, in_gate=None, out_gate=None):
    """The causal definition with all weights, in double precision."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    feature = {
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x + 1, np.exp(x)),
        "cosine": unit,
    }.get(variant.numerator, lambda x: x)
    score = np.einsum("bthd,bshd->bhts", feature(query), feature(key))
    score = score / (1 if variant.numerator == "cosine" else math.sqrt(query.shape[-1]))
    score = np.minimum(score, np.inf if variant.clamp is None else variant.clamp)
    if variant.numerator == "exp":
        score = np.exp(score)
    if variant.numerator == "taylor":
        score = sum(score**n / math.factorial(n) for n in range(variant.order + 1))
    weights = np.tril(score)
    count = np.arange(1, T + 1.0)[:, None]
    total = {
        "sum": np.where(weights.any(-1), weights.sum(-1), 1)[..., None],
        "clamp": np.maximum(weights.sum(-1, keepdims=True), 1),
        "detach": np.maximum(weights.sum(-1, keepdims=True), 1),
        "length": count,
        "none": 1,
    }[variant.normalizer]
    value = value if in_gate is None else value * in_gate[..., None]
    out = np.einsum("bhts,bshe->bthe", weights / total, value)
    out = out if out_gate is None else out * out_gate[..., None]
    if variant.post == "layer":
        out = out - out.mean(-1, keepdims=True)
    if variant.post in ("rms", "layer"):
        return out / np.sqrt((out**2).mean(-1, keepdims=True) + 1e-6)
    return unit(out) if variant.post == "l2" else out


CAUSAL: dict[str, Any] = dict(mask=jattn.masks.causal(), visible_keys=jnp.arange(1, T + 1)[None])


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_variants_by_their_definition(case, gates, name):
    variant = VARIANTS[name]
    chosen: dict[str, Any] = {gate: x for gate, x in gates.items() if getattr(variant, gate)}
    parts = {part: getattr(variant, part) for part in PARTS}
    query, key, value = case
    arrays = 4 * query, key, value  # some scores above 5
    used: dict[str, Any] = {k: jnp.asarray(x, jnp.float32) for k, x in chosen.items()}
    found = softmax_variant(*arrays, **parts, **CAUSAL, **used)
    expected = dense(*arrays, variant, **chosen)
    scale = np.abs(expected).max()
    # The polynomial of order 80 cancels where scores are far below zero.
    close(found / scale, expected / scale, 1e-3 if variant.order else 2e-5)


def test_a_norm_has_softmax_s_direction_and_needs_no_denominator(case):
    softmax = jattn.attend(*case, mask=CAUSAL["mask"])
    close(variant_of(*case, **CAUSAL, normalizer="none", post="l2"), unit(softmax))
    # With a limit that no score reaches the weights are summed as they are.
    close(variant_of(*case, **CAUSAL, clamp=99.0, normalizer="none", post="l2"), unit(softmax))
    large = 60 * case[0]  # exp of these scores overflows
    found = variant_of(large, *case[1:], **CAUSAL, normalizer="none", post="l2")
    close(found, unit(jattn.attend(large, *case[1:], mask=CAUSAL["mask"])))
    case = *case[:2], 100 * case[2]  # the norms have an epsilon of 1e-6
    for post in ("rms", "layer"):
        runs = [
            variant_of(*case, **CAUSAL, normalizer=normalizer, post=post)
            for normalizer in ("none", "sum", "clamp", "length")
        ]
        for other in runs[1:]:
            close(other, runs[0], 1e-4)
        # A gate in front of the norm vanishes, too.
        gate = jnp.full((B, T, H), 0.3)
        close(variant_of(*case, **CAUSAL, post=post, out_gate=gate), runs[0], 1e-4)


def test_softmax_comes_back_from_its_parts(case):
    case = 3 * case[0], *case[1:]
    softmax = jattn.attend(*case, mask=CAUSAL["mask"])
    close(variant_of(*case, **CAUSAL, clamp=jnp.inf), softmax)
    scores = jnp.einsum("bthd,bshd->bhts", *case[:2]) * D**-0.5
    total = jnp.tril(jnp.exp(scores)).sum(-1).swapaxes(1, 2)
    close(variant_of(*case, **CAUSAL, normalizer="none", out_gate=1 / total), softmax)
    assert total.min() < 1 < total.max()
    clamped = variant_of(*case, **CAUSAL, normalizer="clamp")
    close(clamped, softmax * jnp.minimum(total, 1)[..., None])
    # 80 orders are softmax.
    close(variant_of(*case, **CAUSAL, numerator="taylor", order=80), softmax)


def test_a_detached_denominator_has_the_value_but_no_gradient(case):
    query, key, value = case
    slope = jax.jit(
        jax.grad(lambda q, kind: variant_of(q, key, value, normalizer=kind).sum()),
        static_argnums=1,
    )
    close(variant_of(*case, normalizer="clamp"), variant_of(*case, normalizer="detach"))
    assert np.abs(slope(query, "clamp") - slope(query, "detach")).max() > 0.1
    scores = jnp.einsum("bthd,bshd->bhts", query, key) * D**-0.5
    total = jnp.maximum(jnp.exp(scores).sum(-1), 1).swapaxes(1, 2)
    plain = lambda q: (variant_of(q, key, value, normalizer="none") / total[..., None]).sum()
    close(slope(query, "detach"), jax.grad(plain)(query))


@pytest.mark.parametrize(("name", "feature_map"), [("linear_elu", "elu1"), ("linear_relu", "relu")])
def test_linear_variants_are_linear_attention(case, name, feature_map):
    query, key, value = case
    found = softmax_variant(query, key, value, numerator=VARIANTS[name].numerator, **CAUSAL)
    close(found, linear_attention(query, key, value, feature_map=feature_map, causal=True))


def test_the_past_has_no_order(case):
    moved = [jnp.concatenate([x[:, 3::-1], x[:, 4:]], 1) for x in case[1:]]
    for parts in ({"post": "l2", "normalizer": "none"}, {"normalizer": "length", "clamp": 5.0}):
        later = [variant_of(case[0], *kv, **CAUSAL, **parts)[:, 3:] for kv in (case[1:], moved)]
        close(*later)
    close(rnn(*case, 2, causal=True)[:, 3:], rnn(case[0], *moved, 2, causal=True)[:, 3:])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("order", "normalizer"), [(0, "sum"), (4, "sum"), (3, "l2")])
def test_recurrences_are_the_quadratic_form(case, order, normalizer, causal):
    query, key, value = case
    kind = {"sum": dict(normalizer="sum"), "l2": dict(normalizer="none", post="l2")}[normalizer]
    mask = CAUSAL["mask"] if causal else None
    expected = variant_of(query, key, value, numerator="taylor", order=order, mask=mask, **kind)
    found, state = rnn(query, key, value, order, normalizer=normalizer, causal=causal,
                       return_state=True)  # fmt: skip
    close(found, expected, 1e-4)
    assert state.shape == (B, H, math.comb(D + order, order), E + (normalizer == "sum"))
    if causal:
        cut = [x[:, :3] for x in case], [x[:, 3:] for x in case]
        options = dict(normalizer=normalizer, causal=True, return_state=True)
        first, half = rnn(*cut[0], order, **options)
        rest, end = rnn(*cut[1], order, initial_state=half, **options)
        close(jnp.concatenate([first, rest], 1), found, 1e-4)
        close(end, state, 1e-4)
    if order == 0:
        mean = np.cumsum(value, 1) / np.arange(1, T + 1)[:, None, None]
        close(found, mean if causal else np.broadcast_to(value.mean(1)[:, None], found.shape))


def test_order_two_is_taylor_attention_with_fewer_features(case):
    close(rnn(*case, 2, causal=True), taylor_attention.taylor_attention(*case, causal=True), 1e-4)
    x, y = case[0], case[1]
    run = jax.jit(taylor_features, static_argnums=1)
    features = [run(z, 5) for z in (x, y)]
    for n, (a, b) in enumerate(zip(*features, strict=True)):
        assert a.shape[-1] == math.comb(D + n - 1, n)
        close((a * b).sum(-1), (x * y).sum(-1) ** n / math.factorial(n), 1e-4)
    assert features[0][2].shape[-1] == D * (D + 1) // 2


def test_the_polynomial_s_error_and_sign():
    x = np.linspace(-4, 4, 2001)
    with jax.enable_x64(True):
        values = {n: np.asarray(taylor_exp(jnp.asarray(x), n)) for n in range(17)}
    for n, value in values.items():
        error = np.abs(value - np.exp(x))
        bound = np.abs(x) ** (n + 1) / math.factorial(n + 1) * np.maximum(1, np.exp(x))
        assert (error <= bound + 1e-12).all()
        assert n % 2 or value.min() > 0
        assert (taylor_exp(jnp.float32(-30), n) > 0) == (n % 2 == 0)
    error = {n: np.abs(values[n] - np.exp(x)).max() for n in (10, 16)}
    assert error == {10: pytest.approx(0.155, abs=5e-4), 16: pytest.approx(6.2e-5, abs=5e-7)}
    least = [values[n].min() for n in (2, 4, 6)]
    assert least == [pytest.approx(known, abs=1e-4) for known in (0.5, 0.2704, 0.1493)]


def test_even_orders_approach_softmax():
    draws = np.random.default_rng(0).standard_normal((3, 1, 32, 1, 8))
    query, key, value = jnp.asarray(draws, jnp.float32)
    softmax = jattn.attend(query, key, value, mask=jattn.masks.causal())
    errors = [
        float(np.abs(variant_of(query, key, value, numerator="taylor", order=n,
                                mask=jattn.masks.causal()) - softmax).max())
        for n in (2, 4, 6, 10, 16)
    ]  # fmt: skip
    assert all(a > b for a, b in itertools.pairwise(errors))
    assert errors[1] > 1e-2
    assert errors[4] < 1e-4


@functools.cache
@jax.enable_x64(False)
def mixed(name):
    mixer = zoo.make("softmax_variant", dim=8, heads=2, causal=True, variant=name, kv_heads=1)
    params = jax.jit(mixer.init)(jax.random.key(0))
    return mixer, params, jax.random.normal(jax.random.key(1), (B, 5, 8))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("gated_softmax", {"in_gate", "out_gate", "norm_scale", "norm_shift"}),
        ("softmax_divS_norm", {"norm_scale"}),
        ("linear_cosine", {"power"}),
    ],
)
def test_mixers_stream_skip_padding_and_have_their_parameters(name, own):
    mixer, params, x = mixed(name)
    assert set(params) == {"query", "key", "value", "output"} | own
    apply = jax.jit(lambda params, x, mask: mixer.apply(params, x, mask=mask))
    y = apply(params, x, jnp.ones((B, 5), bool))
    assert mixer.init_state is not None
    assert mixer.step is not None
    step, state = jax.jit(mixer.step), mixer.init_state(params, B, 6)
    for t in range(5):
        out, state = step(params, x[:, t], state)
        close(out, y[:, t])
    # Padding in front is as if it were not there.
    late = jnp.broadcast_to(jnp.arange(5) >= 2, (B, 5))
    close(apply(params, x, late)[:, 2:], apply(params, x[:, 2:], late[:, 2:]))
    slopes = jax.jit(jax.grad(lambda params: (mixer.apply(params, x) ** 3).sum()))(params)
    assert all(np.any(leaf) for part in own for leaf in jax.tree.leaves(slopes[part]))


def test_cosine_attention_divides_values_by_a_power_of_the_length():
    mixer, params, x = mixed("linear_cosine")
    query, key, value = (x @ params[name] for name in ("query", "key", "value"))
    query, key, value = query.reshape(B, 5, 2, 4), key[:, :, None], value[:, :, None]
    power = 1 / (1 + np.exp(-0.5))
    value = value / np.arange(1, 6.0)[:, None, None] ** power
    weights = np.tril(np.einsum("bthd,bsgd->bhts", unit(query), unit(key)))
    out = np.einsum("bhts,bsge->bthe", weights, value).reshape(B, 5, 8)
    close(jax.jit(mixer.apply)(params, x), out @ params["output"])


def test_errors(plain_checks, case):
    wrong: Any = (
        (dict(numerator="sin"), "numerator: expected one of 'exp', 'taylor'"),
        (dict(numerator="taylor"), "order: expected 0 or more with 'taylor', got None"),
        (dict(order=2), "order: expected None with 'exp', got 2"),
        (dict(numerator="taylor", order=3), "normalizer: expected another .* 'taylor' of order 3"),
        (dict(numerator="cosine"), "normalizer: expected another than 'sum'"),
        (dict(post="batch"), "post: expected one of"),
        (dict(in_gate=jnp.ones((B, T, 1))), r"in_gate: expected shape \[.*g=2\]"),
    )
    for parts, message in wrong:
        with pytest.raises(ValueError, match=message):
            softmax_variant(*case, **parts)
    with pytest.raises(ValueError, match="order: expected an even number of 0 or more, got 3"):
        taylor_rnn(case[0], case[1], case[2], 3)
    with pytest.raises(ValueError, match="order: expected a number of 0 or more, got -1"):
        zoo.make("softmax_rnn", dim=8, heads=2, order=-1, normalizer="l2")
    with pytest.raises(ValueError, match="variant: expected one of 'softmax'"):
        zoo.make("softmax_variant", dim=8, heads=2, variant="tanh")
    with pytest.raises(ValueError, match="numerator"):
        zoo.make("softmax_variant", dim=8, heads=2, variant=Variant("tanh"))
