"""Hyperbolic and spherical attention against what distances must be, and the router's limits."""

import decimal
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import mixture
from jattn.mechanisms.softmax import curved_attention as curved

B, T, H, D, M = 2, 5, 3, 3, 12
Q, K, V = jax.random.normal(jax.random.key(0), (3, B, T, H, D))
X = jax.random.normal(jax.random.key(1), (B, T, M))


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.5])
def test_lorentz_distance(x64, c):
    u, v, w = jax.random.normal(jax.random.key(2), (3, 40, D), jnp.float64)
    distance = lambda a, b: curved.lorentz_distance(a, b, c)
    near(distance(u, v), distance(v, u), 1e-9)
    # An inner product of numbers of size cosh(r) / sqrt(c) is off by some of their last digits.
    lost = 32 * np.finfo(np.float64).eps * np.cosh(np.sqrt(c) * jnp.linalg.norm(u, axis=-1)) ** 2
    assert (distance(u, u) <= np.sqrt(lost / c)).all()
    assert (distance(u, w) <= distance(u, v) + distance(v, w) + 1e-9).all()
    turn = jnp.linalg.qr(jax.random.normal(jax.random.key(3), (D, D), jnp.float64))[0]
    near(distance(u @ turn, v @ turn), distance(u, v), 1e-9)
    near(distance(u, 0 * u), jnp.linalg.norm(u, axis=-1), 1e-6)
    lifted = curved.lorentz_lift(u, c)
    near((lifted[:, 1:] ** 2).sum(-1) - lifted[:, 0] ** 2, np.full(40, -1 / c), 1e-8)
    # The same points in the ball.
    ball = lambda a: (s := jnp.sqrt(c) * curved.lorentz_lift(a, c))[:, 1:] / (1 + s[:, :1])
    x, y = ball(u), ball(v)
    gap = ((x - y) ** 2).sum(-1) / ((1 - (x**2).sum(-1)) * (1 - (y**2).sum(-1)))
    near(distance(u, v), jnp.arccosh(1 + 2 * gap) / np.sqrt(c), 1e-9)
    flat = jnp.linalg.norm(u - v, axis=-1)
    near(curved.lorentz_distance(u, v, 1e-6), flat, 1e-4)


def exact_distance(u, w, c):
    """By the definition, in decimals of 120 digits."""
    with decimal.localcontext(prec=120):
        u, w = ([decimal.Decimal(float(x)) for x in vector] for vector in (u, w))
        root = decimal.Decimal(c).sqrt()

        def lift(vector):
            length = sum((x * x for x in vector), decimal.Decimal(0)).sqrt()
            up, down = (root * length).exp(), (-root * length).exp()
            return (up + down) / 2, [(up - down) / 2 * x / length for x in vector]

        (a, u), (b, w) = lift(u), lift(w)
        z = a * b - sum(x * y for x, y in zip(u, w, strict=True))
        return float((z + (z * z - 1).sqrt()).ln() / root)


@pytest.mark.parametrize("length", [1e-3, 1.0, 20.0, 44.0, 60.0, 100.0, 1000.0])
def test_far_points(length):
    """Right where cosh(|q|) cosh(|k|), and cosh(|q|) alone, are beyond float32; so are slopes."""
    draw = np.random.default_rng(0).standard_normal((2, 6, D))
    u, w = length * draw / np.linalg.norm(draw, axis=-1, keepdims=True)
    w = w * np.linspace(0.3, 1, 6)[:, None]
    u, w = (jnp.asarray(x, jnp.float32) for x in (u, w))
    slope = jax.vmap(jax.value_and_grad(curved.lorentz_distance, (0, 1)), (0, 0, None))
    found, gradients = jax.jit(slope)(u, w, 1.0)
    expected = [exact_distance(a, b, "1") for a, b in zip(u, w, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    # At the end of a path, the slope along it has length 1 (of the tangent at the origin, in the
    # direction away from it, which is the only one that is not longer).
    assert all(np.isfinite(g).all() for g in gradients)
    along = (np.asarray(gradients[0]) * np.asarray(u)).sum(-1) / length
    assert (np.abs(along) <= 1 + 1e-4).all()
    same, again = jax.jit(slope)(u, u, 1.0)
    assert not same.any()
    assert all(np.isfinite(g).all() for g in again)

    def loss(q, k, v, c):
        return (curved.lorentz_attention(q, k, v, c, 2.0) ** 2).sum()

    q, k = (length * curved.unit(x) for x in (Q, K))
    assert all(np.isfinite(g).all() for g in jax.jit(jax.grad(loss, (0, 1, 2, 3)))(q, k, V, 1.0))


def test_attention_by_distance():
    c, tau = 0.7, 1.3
    mask = jattn.masks.causal()

    def dense(q, k, v):
        distance = curved.lorentz_distance(q[:, :, None], k[:, None], c)
        scores = jnp.where(jnp.tril(jnp.ones((T, T)))[None, :, :, None], -distance / tau, -jnp.inf)
        return jnp.einsum("btsh,bshe->bthe", jax.nn.softmax(scores, axis=2), v)

    ours = lambda q, k, v: curved.lorentz_attention(q, k, v, c, tau, mask=mask)
    cotangent = jax.random.normal(jax.random.key(4), V.shape)
    found, expected = (
        jax.jit(lambda *a, f=f: (f(*a), jax.vjp(f, *a)[1](cotangent)))(Q, K, V)
        for f in (ours, dense)
    )
    jax.tree.map(lambda a, b: near(a, b, 2e-5), found, expected)


def test_gradients_where_points_meet():
    def loss(q, k, c):
        flat = curved.lorentz_attention(q, k, V, c, 1.0).sum()
        return flat + curved.spherical_attention(q, k, V, 1.0, c).sum()

    slopes = jax.jit(jax.grad(loss, (0, 1, 2)))
    for point in (Q, 0 * Q):
        assert all(np.isfinite(g).all() for g in slopes(point, point, 1.0))


@pytest.mark.parametrize("c", [None, 1.5])
def test_spheres_have_no_lengths(c):
    attention = lambda q, k, tau: curved.spherical_attention(q, k, V, tau, c)
    near(attention(5 * Q, 0.2 * K, 1.0), attention(Q, K, 1.0), 1e-5)
    mean = jnp.broadcast_to(V.mean(1, keepdims=True), V.shape)
    near(attention(Q, K, 1e6), mean, 1e-5)
    near(curved.lorentz_attention(Q, K, V, 1.0, 1e6), mean, 1e-5)
    cosine = jnp.einsum("bthd,bshd->bhts", curved.unit(Q), curved.unit(K))
    scores = cosine / 0.8 if c is None else -jnp.arccos(cosine) / (0.8 * np.sqrt(c))
    expected = jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(scores, axis=-1), V)
    near(attention(Q, K, 0.8), expected, 1e-5)


def test_one_geometry_is_flat_attention():
    mixer = curved.make(dim=M, heads=H, geometries=("euclidean",))
    params = mixer.init(jax.random.key(0))
    plain = zoo.make("softmax_attention", dim=M, heads=H)
    near(mixer.apply(params, X), plain.apply(params, X))


def test_router():
    mixer = curved.make(dim=M, heads=H, sphere="angle")
    params = mixer.init(jax.random.key(0))
    assert params["curvature"].shape == (2,)
    assert not params["router_down"].any()
    whole = jax.jit(mixer.apply)
    branches = []
    for index, geometry in enumerate(curved.GEOMETRIES):
        alone = curved.make(dim=M, heads=H, geometries=(geometry,), sphere="angle")
        own = params | {"log_temperature": params["log_temperature"][index : index + 1]}
        own["curvature"] = params["curvature"][index - 1 : index]
        branches.append(alone.apply(own, X))
    even = params | {"router_down": jnp.zeros_like(params["router_down"])}
    near(whole(even, X), sum(branches) / 3)
    # gelu of a large number is that number, so this router always says the same.
    up = jnp.zeros((M, 3)).at[0].set(1.0)
    sure = X.at[..., 0].set(30.0)
    router = params | {"router_up": up, "router_down": jnp.zeros((3, 3)).at[0, 1].set(10.0)}
    alone = curved.make(dim=M, heads=H, geometries=("hyperbolic",))
    own = params | {"log_temperature": params["log_temperature"][1:2]}
    own["curvature"] = params["curvature"][:1]
    near(whole(router, sure), alone.apply(own, sure), 1e-5)


def test_separate_heads():
    mixer = curved.make(dim=M, heads=H, causal=True, branches="separate")
    params = mixer.init(jax.random.key(0))
    even = params | {"router_down": jnp.zeros_like(params["router_down"])}
    query, key, value = (
        (X @ params[name]).reshape(B, T, H, -1) for name in ("query", "key", "value")
    )
    tau = (M // H) ** 0.5
    mask = jattn.masks.causal()
    heads = [
        jattn.attend(query[:, :, :1], key[:, :, :1], value[:, :, :1], mask=mask),
        curved.lorentz_attention(
            query[:, :, 1:2], key[:, :, 1:2], value[:, :, 1:2], 1.0, tau, mask=mask
        ),
        curved.spherical_attention(query[:, :, 2:], key[:, :, 2:], value[:, :, 2:], tau, mask=mask),
    ]
    expected = jnp.concatenate(heads, 2).reshape(B, T, M) @ params["output"] / 3
    near(mixer.apply(even, X), expected, 1e-5)


def test_mixture_of_any_mixers():
    parts = {
        name: zoo.make(name, dim=M, heads=H, causal=True)
        for name in ("softmax_attention", "gated_mlp")
    }
    mixer = mixture(parts, dim=M)
    params = mixer.init(jax.random.key(0))
    whole = mixer.apply(params, X)
    even = params | {"router_down": jnp.zeros_like(params["router_down"])}
    expected = sum(part.apply(params[name], X) for name, part in parts.items()) / 2
    near(mixer.apply(even, X), expected)
    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step = mixer.init_state(params, B, T), jax.jit(mixer.step)
    for t in range(T):
        y, state = step(params, X[:, t], state)
        near(y, whole[:, t])
    both_ways = zoo.make("softmax_attention", dim=M, heads=H)
    assert mixture({"a": both_ways}, dim=M).step is None


def test_bad_options_are_named(plain_checks):
    make = lambda heads=H, **options: curved.make(dim=M, heads=heads, **options)
    for call, message in (
        (lambda: make(branches="x"), "branches: expected one of 'shared', 'separate', got 'x'"),
        (lambda: make(sphere="x"), "sphere: expected one of 'cosine', 'angle', got 'x'"),
        (lambda: make(geometries=("flat",)), "geometries: expected one of 'euclidean'"),
        (lambda: make(geometries=()), "geometries: expected different ones, one at least, got ()"),
        (lambda: make(2, branches="separate"), "heads: expected a multiple of 3 to be separate"),
        (lambda: mixture({}, dim=M), "mixers: expected one at least, got none"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
