"""What methods that train or steer representations promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import lens
from jattn.lens.methods.atomic_steering import atomic_steering, momentum
from jattn.lens.methods.attention_perturbation import (
    attention_perturbation,
    batch_difference_perturbation,
)
from jattn.lens.methods.attention_shifting import (
    shifted_target,
    shifting_loss,
    token_importance,
)
from jattn.lens.methods.guidance import greedy_head_search, guide, soft_identity
from jattn.lens.methods.introspection import concept_vectors, inject, rank_of, rates
from jattn.lens.methods.lofit import (
    iti_shift,
    lofit_edit,
    lofit_init,
    lofit_penalty,
    lofit_select,
    merged_bias,
)
from jattn.lens.methods.method import example_maps, example_model
from jattn.lens.methods.neurofeedback import effect_size, principal_axes, scores_and_labels
from jattn.lens.methods.soft_injection import soft_injection
from jattn.lens.taps import aggregate

T, L, H, D = 8, 2, 4, 4


@jax.enable_x64(False)
def made():
    tokens = jax.random.randint(jax.random.key(1), (1, T), 0, 11)
    return example_model(jax.random.key(0)), tokens, jax.random.normal(jax.random.key(2), (L, H, D))


MODEL, TOKENS, DRAWN = made()


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def logits_under(*edits):
    return lens.run(MODEL, TOKENS, edits=edits)[0]


def test_lofit_selects_trains_and_merges():
    start = lofit_init(jax.random.key(3), L, H, D)
    assert 0.0005 < start.std() < 0.002
    heads = lofit_select(DRAWN, 3)
    assert heads.sum() == 3
    np.testing.assert_array_equal(heads, lofit_select(-DRAWN, 3))
    edit = lofit_edit(shift=DRAWN, heads=heads)
    output = MODEL.arrays()["layers"]["output"]
    bias = merged_bias(jnp.where(heads[..., None], DRAWN, 0), output)
    near(logits_under(edit), logits_under(bias), 1e-5)
    loss = lambda shift: logits_under(lofit_edit(shift=shift, heads=heads)).var()
    reached = np.abs(jax.grad(loss)(DRAWN)).max(-1) > 0
    np.testing.assert_array_equal(reached, heads)
    near(lofit_penalty(jnp.ones((1, 2, 3)), 0.5), 3)
    positive, negative = DRAWN + jax.random.normal(jax.random.key(4), (2, 5, L, H, D))
    shift = iti_shift(positive, negative, strength=2.0)
    theta = positive.mean(0) - negative.mean(0)
    along = jnp.einsum("nlhd,lhd->nlh", jnp.concatenate([positive, negative]), theta)
    near(jnp.linalg.norm(shift, axis=-1), 2 * along.std(0) / jnp.linalg.norm(theta, axis=-1), 1e-5)


def test_injected_tasks_replace_the_last_reads():
    full = jnp.full((L, H), 40.0)
    found = lens.run(MODEL, TOKENS, edits=[soft_injection(full, DRAWN, T)], record=("z",))[1]["z"]
    near(found[:, 0, -1], DRAWN)
    plain = lens.run(MODEL, TOKENS, record=("z",))[1]["z"]
    near(found[0, 0, :-1], plain[0, 0, :-1])
    half = lens.run(MODEL, TOKENS, edits=[soft_injection(0 * full, DRAWN, T)], record=("z",))[1]
    near(half["z"][0, 0, -1], (plain[0, 0, -1] + DRAWN[0]) / 2)
    grads = jax.grad(lambda theta: logits_under(soft_injection(theta, DRAWN, T)).var())(0 * full)
    assert np.abs(grads).min() > 0


def test_atomic_units():
    positive, negative = jax.random.normal(jax.random.key(5), (2, 6, L, H, D))
    positive = positive.at[:, 0, 1, 2].set(negative[:, 0, 1, 2] + 1)
    beta = momentum(positive, negative)
    assert beta[0, 1, 2] == 1
    tied = (positive > negative).sum(0) == 3
    near(jnp.where(tied, 0, momentum(negative, positive) + beta), 0)
    assert (beta[tied] == 0.5).all()
    near(momentum(3 * positive, 3 * negative), beta)
    edit = atomic_steering(beta, count=4, alpha=2.0)
    assert (edit.scale != 0).sum() == 4
    near(logits_under(atomic_steering(beta, count=4, alpha=0.0)), logits_under())
    stream = atomic_steering(jnp.ones((L, 16)), count=3, alpha=1.0, site="mlp_out")
    assert np.abs(logits_under(stream) - logits_under()).max() > 1e-4


def test_concepts():
    words = jax.random.normal(jax.random.key(6), (5, 16))
    near(concept_vectors(words, words).mean(0), 0)
    last = inject(words[0], L - 1, L, T, strength=2.0, start=3)
    record = ("resid_post",)
    found = lens.run(MODEL, TOKENS, edits=[last], record=record)[1]["resid_post"]
    plain = lens.run(MODEL, TOKENS, record=record)[1]["resid_post"]
    near(found[-1, 0, 3:] - plain[-1, 0, 3:], jnp.broadcast_to(2 * words[0], (T - 3, 16)), 1e-5)
    near(found[-1, 0, :3], plain[-1, 0, :3])
    said, there = jnp.array([True, True, False, False]), jnp.array([True, False, True, False])
    assert [float(x) for x in rates(said, there)] == [0.5, 0.5]
    assert rank_of(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([2])).tolist() == [1]
    with pytest.raises(ValueError, match="layer: expected 0 to 1, got 2"):
        inject(words[0], 2, L, T)


def test_axes_of_states():
    states = jax.random.normal(jax.random.key(7), (20, 6)) * jnp.arange(1, 7)
    axes, share = principal_axes(states)
    near(axes @ axes.T, jnp.eye(6), 1e-5)
    assert (jnp.diff(share) <= 0).all()
    near(share.sum(), 1)
    scores, labels = scores_and_labels(states, axes[0])
    assert labels.sum() == 10
    near(scores.std(), 1, 1e-5)
    near(effect_size(scores, states[:, 0]), -effect_size(states[:, 0], scores))


def adversarial():
    hidden = jax.random.normal(jax.random.key(8), (3, 6, 5))
    vector = jax.random.normal(jax.random.key(9), (5, 4))
    predicted = lambda a: jnp.einsum("bt,bth,hv->bv", jax.nn.softmax(a, -1), hidden, vector)
    logits = jax.random.normal(jax.random.key(10), (3, 6))
    loss = lambda a: -jax.nn.log_softmax(predicted(a))[:, 1].sum()
    log = jax.nn.log_softmax(predicted(logits))
    divergence = lambda a: (jnp.exp(log) * (log - jax.nn.log_softmax(predicted(a)))).sum()
    return logits, loss, divergence


@pytest.mark.parametrize("kind", ["at", "iat", "vat", "ivat"])
def test_perturbed_attention(kind):
    logits, loss, divergence = adversarial()
    function, key = (divergence, jax.random.key(11)) if "v" in kind else (loss, None)
    of = jax.jit(
        lambda eps, real: (
            attention_perturbation(function, logits, eps=1.0, kind=kind, key=key, real=real) * eps
        )
    )
    everywhere = jnp.ones(logits.shape, bool)
    moved = of(1e-2, everywhere)
    assert function(logits + moved) > function(logits)
    real = jnp.arange(6) < jnp.array([6, 4, 5])[:, None]
    assert not of(1.0, real)[~real].any()
    if kind in ("at", "vat"):
        near(jnp.linalg.norm(of(1.0, real), axis=1), 1, 1e-5)
    if kind == "at":
        grad = jax.grad(loss)(logits)
        near(grad.sum(1), 0, 1e-5)
        near(loss(logits + 5), loss(logits), 1e-5)
        rise = loss(logits + of(1e-3, everywhere)) - loss(logits)
        np.testing.assert_allclose(rise, 1e-3 * jnp.linalg.norm(grad, axis=1).sum(), rtol=0.02)
    if kind == "vat":  # better than chance, and without any label
        noise = jax.random.normal(jax.random.key(12), (50, 3, 6))
        noise = 1e-2 * noise / jnp.linalg.norm(noise, axis=-1, keepdims=True)
        assert divergence(logits + moved) > jax.vmap(lambda r: divergence(logits + r))(noise).mean()


def test_power_iteration_finds_the_top_eigenvector():
    root = jax.random.normal(jax.random.key(13), (6, 6))
    matrix = root @ root.T
    quadratic = lambda a: 0.5 * a[0] @ matrix @ a[0]
    found = attention_perturbation(
        quadratic, jnp.zeros((1, 6)), eps=1.0, kind="vat", key=jax.random.key(14), steps=60
    )
    top = jnp.linalg.eigh(matrix)[1][:, -1]
    near(jnp.abs(found[0] @ top), 1, 1e-3)


def test_what_perturbation_refuses_and_what_the_released_code_does(plain_checks):
    logits, loss, divergence = adversarial()
    near(attention_perturbation(loss, logits, eps=0.0), 0)
    assert loss(logits + batch_difference_perturbation(loss, logits, eps=0.1)) < loss(logits)
    with pytest.raises(ValueError, match="key: expected one for kind='vat', got None"):
        attention_perturbation(divergence, logits, eps=1.0, kind="vat")
    with pytest.raises(ValueError, match="kind: expected one of 'at', 'iat'"):
        attention_perturbation(loss, logits, eps=1.0, kind="pgd")  # type: ignore


def test_shifted_attention():
    maps = example_maps(jax.random.key(15), L, H, T, T)
    keys = jnp.arange(T) == 2
    near(shifted_target(maps, keys, 0.0), maps)
    near(shifting_loss(maps, maps), 0)
    less = shifted_target(maps, keys, -0.6)
    assert shifting_loss(maps, less) > 0
    assert not shifted_target(maps, keys, -1.0)[..., 2].any()
    weight = jnp.where(keys, 0.4, 1.0)[None, None, None, None]
    found = lens.run(MODEL, TOKENS, edits=[lens.KeyReweight(weight)], record=("probs",))[1]["probs"]
    plain = lens.run(MODEL, TOKENS, record=("probs",))[1]["probs"]
    near(found[0], shifted_target(plain[0], keys, -0.6))
    near(token_importance(jnp.array([2.0]), 1.5), 0.5)


def test_guidance_by_heads_near_the_identity():
    strength = jnp.array([[0.0, 0.3, 1.0, 0.6]] * L)
    plain = lens.run(MODEL, TOKENS, record=("z", "v", "probs"))[1]
    found = lens.run(MODEL, TOKENS, edits=[soft_identity(strength)], record=("z",))[1]["z"]
    u = strength[0][:, None, None]
    explicit = (1 - u) * plain["probs"][0] + u * jnp.eye(T)
    near(found[0], aggregate(explicit, plain["v"][0]))
    near(found[0, 0, :, 2], plain["v"][0, 0, :, 1])  # head 2 reads key-value head 1
    near(guide(found, found + 1, 0.0), found)
    worth = jax.random.normal(jax.random.key(16), (12,))
    best = greedy_head_search(lambda chosen: (chosen * worth).sum(), 12, rounds=2, top_k=2)
    assert set(jnp.flatnonzero(best).tolist()) == set(jnp.argsort(-worth)[:4].tolist())
