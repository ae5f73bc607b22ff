"""Short convolutions on queries, keys and values, against the convolution written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import masks
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import short_convolution
from jattn.mechanisms.layers.convolutions import causal_depthwise
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.nn import TransformerConfig

DIM, HEADS, LENGTH = 8, 2, 6


def tokens(seed=1):
    return jax.random.normal(jax.random.key(seed), (2, LENGTH, DIM))


def convolved(x, weights):
    """`sum_w taps[-1 - w] * y[t - w]`, token by token."""
    y = np.asarray(x) @ np.asarray(weights.weight)
    taps = np.asarray(weights.taps)
    out = np.zeros_like(y)
    for t in range(LENGTH):
        for back in range(min(len(taps), t + 1)):
            out[:, t] += taps[-1 - back] * y[:, t - back]
    return out


def test_projections_are_convolved():
    mixer = short_convolution(zoo.make("linear_attention", dim=DIM, heads=HEADS, causal=True))
    params, x = mixer.init(jax.random.key(0)), tokens()
    query, key, value = (
        jnp.asarray(convolved(x, params[name])).reshape(2, LENGTH, HEADS, -1)
        for name in ("query", "key", "value")
    )
    mixed = linear_attention(query, key, value, causal=True).reshape(2, LENGTH, -1)
    np.testing.assert_allclose(mixer.apply(params, x), mixed @ params["output"], atol=1e-6)


@pytest.mark.parametrize("name", ["gated_delta_rule", "hedgehog", "softmax_attention"])
def test_steps_are_the_sequence(name):
    mixer = short_convolution(zoo.make(name, dim=DIM, heads=HEADS, causal=True), width=3)
    params, x = mixer.init(jax.random.key(0)), tokens()
    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step, out = mixer.init_state(params, 2, LENGTH), jax.jit(mixer.step), []
    for t in range(LENGTH):
        y, state = step(params, x[:, t], state)
        out.append(y)
    np.testing.assert_allclose(jnp.stack(out, 1), mixer.apply(params, x), atol=1e-5)


def test_the_current_tap_alone_changes_nothing():
    inner = zoo.make("retention", dim=DIM, heads=HEADS, causal=True)
    mixer, x = short_convolution(inner), tokens()
    params = dict(mixer.init(jax.random.key(0)))
    plain = dict(params)
    for name in ("query", "key", "value"):
        only_now = jnp.zeros_like(params[name].taps).at[-1].set(1.0)
        plain[name] = params[name].weight
        params[name] = params[name]._replace(taps=only_now)
    np.testing.assert_allclose(mixer.apply(params, x), inner.apply(plain, x), atol=1e-6)


def test_nothing_is_seen_ahead():
    taps, x = jax.random.normal(jax.random.key(0), (4, DIM)), tokens()
    changed = causal_depthwise(x.at[:, 3].add(1.0), taps) - causal_depthwise(x, taps)
    assert not changed[:, :3].any()
    assert changed[:, 3:].any(axis=(0, 2)).all()


def test_what_cannot_be(plain_checks):
    with pytest.raises(ValueError, match="width: expected at least 1"):
        short_convolution(zoo.make("retention", dim=8, heads=2, causal=True), width=0)
    with pytest.raises(ValueError, match="short_convolution: expected a width"):
        TransformerConfig(vocab_size=8, dim=8, heads=2, causal=False, short_convolution=4)


@pytest.mark.parametrize("name", ["gated_delta_rule", "softmax_attention", "titans_memory"])
def test_filters_see_neither_padding_nor_other_documents(name):
    """Inner and left padding takes no place; documents, also scattered ones, are as apart."""
    mixer = short_convolution(zoo.make(name, dim=DIM, heads=HEADS, causal=True))
    params, x = mixer.init(jax.random.key(0)), tokens()
    masked = jax.jit(lambda params, x, real: mixer.apply(params, x, mask=real))
    real = jnp.arange(LENGTH) < 4
    alone = masked(params, x, jnp.broadcast_to(real, x.shape[:2]))[:, :4]
    np.testing.assert_allclose(alone, mixer.apply(params, x[:, :4]), atol=1e-5)
    for places in ([2, 3, 4, 5], [0, 2, 3, 5]):
        spread = jnp.full_like(x, jnp.nan).at[:, jnp.array(places)].set(x[:, :4])
        there = jnp.zeros(x.shape[:2], bool).at[:, jnp.array(places)].set(True)
        y = masked(params, spread, there)[:, jnp.array(places)]
        np.testing.assert_allclose(y, alone, atol=1e-5)
    ids = jnp.array([[5, 5, 2, 2, 5, 5], [1, 1, 1, 1, 0, 0]])
    if name == "titans_memory":
        with pytest.raises(ValueError, match="mask: titans_memory expected padding"):
            mixer.apply(params, x, mask=masks.segments(ids))
        return
    y = mixer.apply(params, x, mask=masks.segments(ids))
    for row, places in ((0, [0, 1, 4, 5]), (1, [0, 1, 2, 3])):
        own = jnp.zeros_like(x).at[0, :4].set(x[row, jnp.array(places)])
        apart = masked(params, own, jnp.broadcast_to(real, x.shape[:2]))[0, :4]
        np.testing.assert_allclose(y[row, jnp.array(places)], apart, atol=1e-5)
    with pytest.raises(ValueError, match="mask: short_convolution expected padding"):
        mixer.apply(params, x, mask=masks.sliding_window(2))
