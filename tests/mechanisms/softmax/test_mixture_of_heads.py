"""Mixture of heads: gates, loads, and heads that are off."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import moh_gates, query_norm_gates, routed
from jattn.mechanisms.softmax import mixture_of_heads

B, T, M, H = 2, 6, 16, 8
X = jax.random.normal(jax.random.key(1), (B, T, M))
ROUTERS = ("router", "shared_router", "type_router")
PLAIN = ("query", "key", "value", "output")


def made(shared: int, chosen: int, **options: Any):
    mixer = mixture_of_heads.make(dim=M, heads=H, shared=shared, chosen=chosen, **options)
    return mixer, mixer.init(jax.random.key(0))


def plain(params, x=X):
    mixer = zoo.make("softmax_attention", dim=M, heads=H)
    return mixer.apply({name: params[name] for name in PLAIN}, x)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize(("shared", "names"), [(0, 1), (1, 2), (3, 3), (H, 1)])
def test_routers_of_zero_with_every_head_are_softmax_attention(shared, names):
    mixer, params = made(shared, H - shared)
    routers = {name: jnp.zeros_like(params[name]) for name in ROUTERS if name in params}
    assert len(routers) == names
    near(mixer.apply(params | routers, X), plain(params))


def test_equal_routers_choose_the_first_heads():
    mixer, params = made(2, 3)
    params |= {name: jnp.zeros_like(params[name]) for name in ROUTERS}
    first = jnp.repeat(jnp.arange(H) < 5, M // H)[:, None]
    near(mixer.apply(params, X), plain(params | {"output": params["output"] * first}))


def test_sums_of_gates():
    shared, chosen = 2, 3
    _, params = made(shared, chosen)
    router, shared_router, type_router = (params[name] for name in ROUTERS)
    sizes: Any = dict(shared=shared, chosen=chosen)
    gates, balance = moh_gates(X, router, shared_router, None, **sizes)
    assert ((gates[..., shared:] > 0).sum(-1) == chosen).all()
    near(gates[..., :shared].sum(-1), shared)
    near(gates[..., shared:].sum(-1), chosen)
    typed, _ = moh_gates(X, router, shared_router, type_router, **sizes)
    near(typed[..., :shared].sum(-1) / shared + typed[..., shared:].sum(-1) / chosen, 2.0)
    # By loops, from the definition.
    share = np.asarray(jax.nn.softmax(X @ router)).reshape(B * T, -1)
    loads = np.zeros(H - shared)
    for row in share:
        loads[np.argsort(-row)[:chosen]] += 1 / (B * T)
    near(balance, (H - shared) ** 2 * np.mean(share.mean(0) * loads), 1e-5)


def test_balance():
    """It is the number of chosen heads at even shares, and at least that for equal tokens."""
    even, router = jnp.zeros((M, 6)), jax.random.normal(jax.random.key(2), (M, 6))
    balance: Any = lambda x, router, real=None: moh_gates(x, router, chosen=2, real=real)[1]
    near(balance(X, even), 2.0)
    assert balance(jnp.broadcast_to(X[:1, :1], X.shape), router) > 2.0
    # It has a gradient, which pushes shares away from loads.
    assert np.abs(jax.grad(lambda r: balance(X, r))(router)).max() > 1e-3
    real = jnp.arange(T) < jnp.array([[4], [4]])
    near(balance(X, router, real=real), balance(X[:, :4], router), 1e-6)


def test_a_head_that_is_not_chosen_is_not_heard():
    mixer, params = made(2, 3)
    gates, _ = moh_gates(X, *(params[name] for name in ROUTERS), shared=2, chosen=3)
    off = np.asarray(gates == 0)
    assert off.any()
    y = mixer.apply(params, X)
    for head in range(2, H):
        rows = jnp.arange(M) // (M // H) == head
        muted = mixer.apply(params | {"output": jnp.where(rows[:, None], 0, params["output"])}, X)
        near(np.asarray(muted - y)[off[..., head]], 0.0)
        assert np.abs(np.asarray(muted - y)[~off[..., head]]).min(-1).max() > 0


def test_the_order_of_routed_heads_is_nothing():
    mixer, params = made(2, 3)
    order = np.array([0, 1, 4, 7, 2, 6, 3, 5])
    channels = (order[:, None] * (M // H) + np.arange(M // H)).reshape(-1)
    turned = params | {name: params[name][:, channels] for name in PLAIN[:3]}
    turned |= {"output": params["output"][channels], "router": params["router"][:, order[2:] - 2]}
    near(mixer.apply(turned, X), mixer.apply(params, X), 1e-5)


def test_heads_by_the_length_of_queries():
    _, params = made(2, 3, router="query_norm", rotary=True)
    assert set(params) == set(PLAIN)
    query = (X @ params["query"]).reshape(B, T, H, -1)
    gates, _ = query_norm_gates(query, shared=2, chosen=3)
    length = np.linalg.norm(query, axis=-1)[..., 2:]
    np.testing.assert_array_equal(gates[..., :2], 1.0)
    np.testing.assert_array_equal(gates[..., 2:], length >= np.sort(length)[..., 3:4])
    everything, _ = made(2, 6, router="query_norm")
    near(everything.apply(params, X), plain(params))
    # Straight through: the choice has the gradient of the shares, also where all are alike.
    pick = lambda q, i: (query_norm_gates(q, chosen=3)[i] * jnp.arange(H)).sum()
    near(jax.grad(pick)(query, 0), jax.grad(pick)(query, 1))
    assert np.abs(jax.grad(pick)(query, 0)).max() > 1e-3
    assert np.isfinite(jax.grad(pick)(jnp.ones_like(query), 0)).all()
    assert np.isfinite(jax.grad(pick)(jnp.zeros_like(query), 0)).all()


def test_any_mixer_can_be_routed():
    inner = zoo.make("retention", dim=M, heads=H, causal=True)
    mixer = routed(inner, dim=M, heads=H)
    params = mixer.init(jax.random.key(0))
    own = {name: params[name] for name in set(params) - set(ROUTERS)}
    assert np.abs(mixer.apply(params, X) - inner.apply(own, X)).max() > 1e-2
    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step = mixer.init_state(params, B, T), jax.jit(mixer.step)
    for t in range(3):
        y, state = step(params, X[:, t], state)
    near(y, mixer.apply(params, X)[:, 2], 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": 9}, "shared: expected 0 to 8 of 8 heads, got 9"),
        ({"shared": 4, "chosen": 5}, "chosen: expected 1 to 4 routed heads, got 5"),
        ({"chosen": 0}, "chosen: expected 1 to 6 routed heads, got 0"),
        ({"router": "x"}, "router: expected one of 'learned', 'query_norm', got 'x'"),
        ({"router": "query_norm", "shared": 7}, "router: query_norm compares routed heads"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        mixture_of_heads.make(dim=M, heads=H, **options)
