"""Flow-Attention: what is conserved, what competes, and the quadratic form of both kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms.linear.flow_attention import FlowState, flows
from jattn.mechanisms.linear.flow_attention import flow_attention as core

B, T, S, H, D, E = 2, 5, 7, 2, 4, 3
flow_attention = jax.jit(core, static_argnames=("causal", "return_state"))


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    return draw(B, T, H, D), draw(B, S, H, D), draw(B, S, H, E)


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def quadratic(query, key, value, *, causal):
    """The definition by all pairs, without eps: output, competition, gate."""
    query, key = sigmoid(query), sigmoid(key)
    pair = np.einsum("bthd,bshd->bhts", query, key)
    t, s = pair.shape[2:]
    # By pairs, sources are summed for a sink at its row; a source meets the sinks up to its own.
    seen = np.tril(np.ones((t, s))) if causal else np.ones((t, s))
    count = np.arange(1, t + 1.0) if causal else 1.0
    incoming = (pair * seen).sum(-1)
    back = np.swapaxes(pair, -1, -2)
    outgoing = (back * (seen if causal else seen.T)).sum(-1)
    sinks = (pair * seen * (count / outgoing)[..., None, :]).sum(-1) / count
    sources = (back * (seen if causal else seen.T) * (count / incoming)[..., None, :]).sum(-1)
    weight = np.exp(np.minimum(sources / count, 1))
    if causal:
        competition = count * weight / np.cumsum(weight, -1)
    else:
        competition = s * weight / weight.sum(-1, keepdims=True)
    gate = sigmoid(sinks * (1 if causal else t / s))
    weights = gate[..., None] * pair * seen / incoming[..., None] * competition[..., None, :]
    return np.einsum("bhts,bshe->bthe", weights, value), competition, gate


def test_flows_are_conserved(case):
    query, key = (jax.nn.sigmoid(x) for x in case[:2])
    found = flows(query, key)
    close(found.conserved_outgoing.sum(1), T, 1e-4)
    close(found.conserved_incoming.sum(1), S, 1e-4)
    pair = jnp.einsum("bthd,bshd->bths", query, key) / found.incoming[..., None]
    close(pair.sum(-1), 1.0)


@pytest.mark.parametrize("causal", [False, True])
def test_sums_are_the_quadratic_form(case, causal):
    query, key, value = case
    query = key[:, ::-1] if causal else query
    expected, competition, _ = quadratic(query, key, value, causal=causal)
    out = flow_attention(query, key, value, causal=causal)
    close(out, expected)
    if not causal:
        close(competition.mean(-1), 1.0)
    assert np.abs(competition - 1).max() > 0.02
    # The read is an average, so no output exceeds the largest value after competition.
    bound = np.abs(competition.swapaxes(1, 2)[..., None] * value).max((1, 3))
    assert (np.abs(out).max((1, 3)) <= bound).all()


def test_the_clip_is_at_work(case):
    _, key, _ = case
    found = flows(*(jax.nn.sigmoid(x) for x in (key[:, ::-1], key)))
    assert 0.2 < (found.conserved_outgoing > 1).mean() < 0.8


def test_equal_keys_do_not_compete_and_only_the_gate_is_left(case):
    query, key, value = case
    key = jnp.broadcast_to(key[:, :1], key.shape)
    _, competition, gate = quadratic(query, key, value, causal=False)
    close(competition, 1.0)
    out = flow_attention(query, key, jnp.full_like(value, 3.0))
    close(out, jnp.broadcast_to(3 * gate.swapaxes(1, 2)[..., None], out.shape))


def test_one_token_passes_its_value_through_a_gate_of_one(case):
    query, key, value = case
    expected = jax.nn.sigmoid(1.0) * value[:, :1]
    close(flow_attention(query[:, :1], key[:, :1], value[:, :1]), expected)
    close(flow_attention(key, key, value, causal=True)[:, :1], expected)


def test_order_does_not_matter_unless_causal(case):
    query, key, value = case
    out = flow_attention(*case)
    close(flow_attention(query, key[:, ::-1], value[:, ::-1]), out)
    close(flow_attention(query[:, ::-1], key, value), out[:, ::-1])


def test_causal_does_not_see_the_future_and_goes_on_from_a_state(case):
    _, key, value = case
    whole, last = flow_attention(key, key, value, causal=True, return_state=True)
    cut = 4
    first, state = flow_attention(
        key[:, :cut], key[:, :cut], value[:, :cut], causal=True, return_state=True
    )
    close(first, whole[:, :cut])
    rest, end = flow_attention(
        key[:, cut:], key[:, cut:], value[:, cut:],
        causal=True, initial_state=state, return_state=True,
    )  # fmt: skip
    close(rest, whole[:, cut:])
    assert isinstance(last, FlowState)
    for a, b in zip(end, last, strict=True):
        close(a, b)


def test_masked_queries_take_nothing_and_rows_without_keys_are_zero(case):
    query, key, value = case
    half = jnp.broadcast_to(jnp.arange(T) < 3, (B, T))
    out = flow_attention(query, key, value, query_mask=half)
    close(out[:, :3], flow_attention(query[:, :3], key, value))
    assert np.abs(out[:, :3] - flow_attention(query, key, value)[:, :3]).max() > 1e-3
    none = jnp.zeros((B, S), bool)
    close(flow_attention(query, key, value, mask=none), 0)
    close(flow_attention(key, key, value, mask=none, causal=True), 0)
    late = none.at[:, 2:].set(True)  # padding in front is as if it were not there
    out = flow_attention(key, key, value, mask=late, causal=True)
    close(out[:, 2:], flow_attention(key[:, 2:], key[:, 2:], value[:, 2:], causal=True))


def test_grouped_keys_serve_neighbouring_heads(case):
    query, key, value = (x[:, :, :1] for x in case)
    query = jnp.concatenate([query, -query], 2)
    two = [jnp.repeat(x, 2, 2) for x in (key, value)]
    close(flow_attention(query, key, value), flow_attention(query, *two))


@pytest.mark.parametrize("spread", [1.0, 3.0, 6.0])
def test_competition_sharpens_the_weights(spread):
    """Mean entropy of the weights, to those without competition; a small effect."""
    rng = np.random.default_rng(0)
    query, key = spread * rng.standard_normal((2, 1, 48, 1, 16))
    value = np.zeros((1, 48, 1, 1))
    _, competition, _ = quadratic(query, key, value, causal=False)

    def entropy(share):
        weights = np.einsum("bthd,bshd->bhts", sigmoid(query), sigmoid(key)) * share[..., None, :]
        weights = weights / weights.sum(-1, keepdims=True)
        return -(weights * np.log(weights)).sum(-1).mean()

    assert entropy(competition) < entropy(np.ones_like(competition)) < np.log(48)


def test_errors(plain_checks, case):
    query, key, value = case
    with pytest.raises(ValueError, match=r"key: expected shape \[b=2, t=5, .* got \[2, 7"):
        core(query, key, value, causal=True)
    with pytest.raises(ValueError, match="query_mask: expected None if causal"):
        core(key, key, value, causal=True, query_mask=jnp.ones((B, S), bool))
    with pytest.raises(ValueError, match="causal: expected True with initial_state"):
        core(query, key, value, return_state=True)
