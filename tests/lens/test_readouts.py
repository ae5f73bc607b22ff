"""Readouts of records: planted patterns, sums that must add up, gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn import lens, masks
from jattn.attention import attend, attention_statistics
from jattn.lens import readouts
from jattn.lens.steering import ablate_direction, last_token, project_out, steering_vectors
from jattn.lens.tuned_lens import Translators, fit_tuned_lens, tuned_lens, tuned_lens_loss
from jattn.nn import Llama, LlamaConfig

V, B, T, L, H, M = 13, 2, 7, 2, 4, 16
CONFIG = LlamaConfig(vocab_size=V, dim=M, layers=L, heads=H, kv_heads=2, hidden=24)


@jax.enable_x64(False)
def made():
    return Llama(CONFIG, rngs=nnx.Rngs(0)), jax.random.randint(jax.random.key(0), (B, T), 0, V)


MODEL, TOKENS = made()


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def test_losses_are_of_the_next_token():
    logits = MODEL(TOKENS)
    losses = readouts.token_losses(logits, TOKENS)
    by_hand = -jax.nn.log_softmax(logits[1, 3])[TOKENS[1, 4]]
    near(losses[1, 3], by_hand)


def test_head_scores_of_planted_heads():
    period, length = 3, 7
    shift = lambda n: jnp.eye(length, k=-n)
    maps = jnp.stack([shift(2), shift(3), shift(1), shift(0)])[None, None]
    found = readouts.head_scores(maps, period)
    assert found["induction"][0].tolist() == [1, 0, 0, 0]
    assert found["duplicate"][0].tolist() == [0, 1, 0, 0]
    assert found["previous"][0].tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match=r"probs: expected 1 \+ 2 \* 4 = 9 tokens, got 7"):
        readouts.head_scores(maps, 4)


def test_massive_tokens_and_sinks():
    x = jnp.ones((1, 4, 64)).at[0, 0, 5].set(200.0)
    assert readouts.massive_dims(x, 1).tolist() == [5]
    phi = readouts.massiveness(x, readouts.massive_dims(x, 1))[0]
    assert phi[0] > 7.9
    near(phi[1:], 1)
    first = jnp.zeros((1, 1, 2, 3, 3)).at[0, 0, 0, :, 0].set(1.0)
    assert readouts.sink_rate(first) == 0.5


def test_attributions_add_up_to_the_difference_of_logits():
    table = MODEL.arrays()["embed"]
    found = readouts.direct_attribution(MODEL, TOKENS, table[3] - table[5])
    total = found["heads"].sum((0, 2)) + found["mlps"].sum(0) + found["embedding"]
    logits = MODEL(TOKENS)[:, -1]
    near(total, logits[:, 3] - logits[:, 5], 1e-5)


def test_the_gradient_of_maps_is_that_of_differences(x64):
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), MODEL.arrays())
    model = Llama(CONFIG, weights=weights)
    loss = lambda logits: -jax.nn.log_softmax(logits[0, -1])[3]
    probs, grad = readouts.grad_times_attention(model, TOKENS[:1], loss)
    assert not np.triu(probs * grad, 1).any()
    place = (1, 0, 2, 5, 3)
    add = lambda step: lens.ResidAdd(jnp.zeros_like(probs).at[place].set(step), site="probs")
    of = lambda step: loss(lens.run(model, TOKENS[:1], edits=[add(step)])[0])
    np.testing.assert_allclose(grad[place], (of(1e-5) - of(-1e-5)) / 2e-5, rtol=1e-6)


def test_a_tuned_lens_is_the_logit_lens_first_and_then_better():
    logits, found = lens.run(MODEL, TOKENS, record=("resid_post",))
    zero = Translators(jnp.zeros((L, M, M)), jnp.zeros((L, M)))
    plain = readouts.logit_lens(MODEL, found["resid_post"])
    near(tuned_lens(MODEL, zero, found["resid_post"]), plain)
    near(plain[-1], logits, 1e-5)
    batches = jax.random.randint(jax.random.key(1), (60, 8, T), 0, V)
    translators, losses = fit_tuned_lens(MODEL, batches, rate=3e-3)
    near(losses[0, -1], 0, 1e-5)  # the last layer needs no translation
    after = tuned_lens_loss(MODEL, translators, TOKENS)
    assert after[0] < 0.5 * tuned_lens_loss(MODEL, zero, TOKENS)[0]


def test_directions():
    vectors = steering_vectors(MODEL, [TOKENS[0], TOKENS[1, :4]], [TOKENS[1]])
    rows = last_token(MODEL, [TOKENS[0], TOKENS[1, :4], TOKENS[1]])
    near(vectors, (rows[0] + rows[1]) / 2 - rows[2])
    alone = lens.run(MODEL, TOKENS[1:, :4], record=("resid_post",))[1]["resid_post"][:, 0, -1]
    near(rows[1], alone, 1e-5)
    x = jax.random.normal(jax.random.key(2), (3, M))
    once = project_out(x, vectors[0])
    near(project_out(once, vectors[0]), once, 1e-5)
    near(once @ vectors[0], 0, 1e-4)
    edit = ablate_direction(vectors)
    found = lens.run(MODEL, TOKENS, edits=[edit], record=("resid_post",))[1]["resid_post"]
    near(jnp.einsum("lbtm,lm->lbt", found, vectors), 0, 1e-4)


@pytest.mark.parametrize("length", [5, 300])
def test_statistics_of_maps_are_those_of_the_maps(length):
    query, key = jax.random.normal(jax.random.key(0), (2, 2, length, 4, 8)) * 1.5
    key = key[:, :, :2]
    real = jnp.arange(length) < jnp.array([length, length - 2])[:, None]
    mask = masks.causal() & masks.padding(real)
    found = jax.jit(lambda q, k: attention_statistics(q, k, mask=mask))(query, key)
    options: dict = dict(return_weights=True, implementation="reference")
    weights = attend(query, key, key, mask=mask, **options)[1]
    near(found["key_mass"], weights.sum(2), 2e-4)
    logs = jnp.log(jnp.where(weights > 0, weights, 1))
    near(found["entropy"], -(weights * logs).sum(-1), 2e-5)
    near(found["max"], weights.max(-1), 1e-5)
    np.testing.assert_array_equal(found["argmax"], weights.argmax(-1))


def test_statistics_of_rows_without_keys_and_of_unknown_names(plain_checks):
    x = jnp.ones((1, 3, 1, 2))
    none = jnp.zeros((1, 1, 3, 3), bool).at[..., 1:, :].set(True)
    found = attention_statistics(x, x, mask=none)
    assert all(np.isfinite(value).all() for value in found.values())
    assert found["entropy"][0, 0, 0] == found["max"][0, 0, 0] == 0
    with pytest.raises(ValueError, match=r"reduce: expected one of 'key_mass', .*, got 'sum'"):
        attention_statistics(x, x, reduce=("sum",))
