"""What methods about heads and contexts promise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn import lens
from jattn.lens.methods import rhythm
from jattn.lens.methods.attention_influence import (
    attention_influence,
    best_heads,
    retrieval_scores,
    uniform_heads,
)
from jattn.lens.methods.circuits import circuit, emergent, force_attention, overlap, pairs
from jattn.lens.methods.contrastive_attention import (
    bounding_box,
    contrastive_attention,
    select_regions,
    span_entropy,
)
from jattn.lens.methods.copy_suppression import cspa, explained, ov_self_rank, projected
from jattn.lens.methods.forgetting import hide_after, pooled
from jattn.lens.methods.gaze_heads import gaze, gaze_scores, steer_to
from jattn.lens.methods.gaze_shift import gaze_saliency, gaze_shift_amplification, gaze_shifts
from jattn.lens.methods.head_divergence import (
    context_heads,
    head_divergence,
    reinforce,
    total_divergence,
)
from jattn.lens.methods.method import example_maps, example_model
from jattn.lens.methods.pattern_rates import pattern_rates, span_bias, span_products
from jattn.lens.methods.saliency import candidate_saliency, locore, saliency_maps, sgrs_step
from jattn.lens.methods.token_emphasis import (
    emphasised_tokens,
    head_sensitivity,
    token_emphasis,
)
from jattn.lens.readouts import grad_times_attention
from jattn.nn import Llama

T, L, H = 8, 2, 4


@jax.enable_x64(False)
def made():
    maps = example_maps(jax.random.key(0), L, H, T, T)
    tokens = jax.random.randint(jax.random.key(1), (1, T), 0, 11)
    return maps, example_model(jax.random.key(0)), tokens


MAPS, MODEL, TOKENS = made()


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def maps_under(*edits: Any, model=MODEL, tokens=TOKENS):
    return lens.run(model, tokens, edits=edits, record=("probs",))[1]["probs"]


def test_rhythm():
    one_hot = jnp.eye(20, k=-4)
    near(rhythm.waad(one_hot)[4:], 4)
    near(rhythm.waad(jnp.eye(20, k=-14))[14:], 10)
    near(rhythm.waad(jnp.eye(20)), 0)
    near(rhythm.fai(jnp.full((20, 20), 0.3), lo=2, hi=5)[:-2], 0.3)
    near(rhythm.fai(jnp.full((20, 20), 0.3), lo=2, hi=5)[-2:], 0)
    distance = jnp.arange(10.0).reshape(2, 5)
    near_heads, far = rhythm.local_and_global(distance, 0.3)
    assert near_heads.sum() == far.sum() == 3
    assert near_heads[0, :3].all()
    assert far[1, 2:].all()
    near(rhythm.mean_distance(jnp.eye(5, k=-1)), 0.8)
    wave, influence = jax.random.uniform(jax.random.key(2), (2, 40))
    for kind in ("local", "global", "coupled"):
        gamma = rhythm.credit(wave, influence, kind=kind)
        assert set(np.unique(gamma).tolist()) <= {1.0, 1.25, 1.5}
        near(rhythm.credit(wave, influence, kind=kind, gain=1.0), 1)
    advantage = jnp.array([1.0, -1.0])
    near(rhythm.token_advantage(advantage, jnp.array([1.5, 1.5])), jnp.array([1.5, -1.0]))


def test_retrieval_of_planted_heads():
    tokens = jnp.array([3, 4, 5, 6, 9, 4, 5, 6])
    index = jnp.arange(8)
    answer, needle = index > 4, (index > 0) & (index < 4)
    copy = jnp.zeros((8, 8)).at[jnp.array([4, 5, 6]), jnp.array([1, 2, 3])].set(1.0)
    previous = jnp.eye(8, k=-1)
    found = retrieval_scores(jnp.stack([copy, previous]), tokens, answer, needle)
    assert found.tolist() == [1.0, 0.0]
    assert best_heads(jnp.arange(40.0).reshape(4, 10)).sum() == 2
    near(attention_influence(jnp.ones(3), jnp.ones(3)), 0)
    heads = lens.heads_of([(0, 1)], L, H)
    maps = maps_under(uniform_heads(heads))
    near(maps[0, 0, 1], jnp.tril(jnp.ones((T, T))) / jnp.arange(1, T + 1)[:, None])
    near(maps[0, 0, 2], maps_under()[0, 0, 2])


def test_gaze():
    regions = jnp.arange(T) // 3 == jnp.arange(2)[:, None]
    rows = MAPS[None, :, :, -1].repeat(2, 0)
    both = jnp.stack([regions, regions])
    found = gaze(rows[0], regions)
    assert (found.sum(-1) <= 1 + 1e-6).all()
    near(gaze(rows[0], regions[::-1]), found[..., ::-1])
    near(gaze_scores(rows, both), (found[..., 0] + found[..., 1]) / 2)
    heads = lens.heads_of([(1, 2)], L, H)
    steered = maps_under(steer_to(heads, regions[0], regions[1]))
    near(steered[1, 0, 2, -1, :3].sum(), 1)
    near(steered[0], maps_under()[0])
    near(steered[1, 0, 1], maps_under()[1, 0, 1])
    near(maps_under(steer_to(heads, regions[0], regions[1], 0.0)), maps_under())


def test_divergence_of_heads_and_reinforcement_layer_by_layer():
    z = jax.random.normal(jax.random.key(3), (2, 5, 4))
    near(head_divergence(z[0], z[0]), 0)
    assert context_heads(z[0], z[1], surges=False).sum() == 3  # ceil(5 / 2)
    near(total_divergence(jnp.array([[3.0, 1.0], [2.0, 0.0]]), 2), 2.5)
    # A text with its context, and the rest of it padded in front.
    tokens = jnp.concatenate([TOKENS, TOKENS])
    mask = jnp.stack([jnp.ones(T, bool), jnp.arange(T) >= 3])
    run = lambda *edits: lens.run(MODEL, tokens, edits=edits, record=("z",), mask=mask)[1]["z"]
    plain, after = run(), run(reinforce(3.0))
    near(run(reinforce(1.0)), plain)
    chosen = context_heads(plain[0, 0, -1], plain[0, 1, -1])
    factor = jnp.where(chosen, 3.0, 1.0)[:, None]
    near(after[0, 0, -1], factor * plain[0, 0, -1])
    near(after[0, 1], plain[0, 1])
    near(after[:, 0, :-1], plain[:, 0, :-1])


def test_emphasis_never_takes_from_all_that_it_raises():
    span = (jnp.arange(T) > 1) & (jnp.arange(T) < 6)
    chosen = emphasised_tokens(MAPS[0, 0, -1], span, 0.5)
    assert chosen.sum() == 2
    assert not (chosen & ~span).any()
    sensitive = head_sensitivity(MAPS[:, :, -1], span)
    near(sensitive.max(-1), 1)
    sensitive = sensitive.at[:, 0].set(0)
    plain, after = maps_under()[0], maps_under(token_emphasis(chosen, sensitive, alpha=2.0))[0]
    mass = lambda p: jnp.where(chosen, p, 0).sum(-1)
    assert (mass(after) >= mass(plain) - 1e-6).all()
    near(after[:, 0], plain[:, 0])
    near(maps_under(token_emphasis(chosen, sensitive, alpha=0.0)), maps_under())


def test_contrast_factors_out_what_any_question_draws():
    signal, noise = jax.random.uniform(jax.random.key(4), (2, 1, 1, 30), minval=0.1)
    near(contrastive_attention(signal * noise, noise), signal[0, 0], 1e-5)
    near(contrastive_attention(noise, noise), 1, 1e-5)
    near(span_entropy(jnp.ones((2, 8))), np.log(8))
    score = jnp.zeros(40).at[3:6].set(5.0).at[20].set(4.0).at[30:32].set(3.0).at[38].set(1.0)
    mask = select_regions(score, top=0.175, least=2)
    assert np.flatnonzero(mask).tolist() == [3, 4, 5, 30, 31]
    assert bounding_box(mask).tolist() == [3, 32]
    assert (select_regions(score, top=0.3) >= select_regions(score, top=0.1)).all()


def test_gaze_shifts():
    rows = jnp.arange(4, 7)
    shifts = gaze_shifts(MAPS, rows, jnp.arange(1, 4))
    assert shifts.shape == (L, H, 3, 3)
    near(shifts[0, 1, 0, 2], max(MAPS[0, 1, 4, 3] - MAPS[0, 1, 3, 3], 0))
    weight = gaze_saliency(shifts, 4.0)
    near(weight.min(), 1)
    near(weight.max(), np.exp(4), 1e-3)
    near(gaze_saliency(jnp.zeros((2, 3))), 1)
    near(gaze_saliency(shifts, 0.0), 1)
    after = gaze_shift_amplification(MAPS, weight, jnp.arange(1, 4), jnp.arange(5, 8))
    np.testing.assert_array_equal(after[..., :-1, :], MAPS[..., :-1, :])


def test_saliency_and_the_row_that_it_is_read_from():
    loss = lambda logits: -jax.nn.log_softmax(logits[0, 5])[3]
    probs, grads = grad_times_attention(MODEL, TOKENS, loss)
    near(saliency_maps(probs, 7 * grads), saliency_maps(probs, grads), 1e-5)
    maps = saliency_maps(probs, grads)[:, 0]
    near(maps[:, 6:], 0)  # no row behind the one that predicts can reach it
    assert np.abs(maps[:, 5]).max() > 0
    outputs = jnp.arange(T) < 4
    near(candidate_saliency(maps, 5, outputs), maps[:, 5, :4].mean())
    logits, candidates = jnp.arange(9.0), jnp.array([8, 7, 6])
    salient = jnp.array([0.1, 0.5, 0.2])
    step = lambda alpha, history: sgrs_step(
        jax.random.key(5), logits, salient, candidates, history, alpha=alpha
    )
    always = step(0.0, jnp.ones(5))
    assert always.accepted
    never = step(1e9, jnp.ones(5))
    assert not never.accepted
    assert never.token == 7
    near(maps_under(locore(T, start=2, beta=0.0)), maps_under())
    ratio = maps_under(locore(T, start=3, beta=1.0, window=2))[0] / maps_under()[0]
    near(ratio[0, 0, 7, 6] / ratio[0, 0, 7, 1], 2, 1e-4)
    near(ratio[0, 0, 7, 4] / ratio[0, 0, 7, 1], 1, 1e-4)


def test_patterns_and_a_bias_between_spans():
    near(pattern_rates(jnp.eye(T))["diagonal"], (T - 1) / T)
    column, row = jnp.zeros((T, T)).at[:, 2].set(1.0), jnp.zeros((T, T)).at[3].set(1.0)
    near(pattern_rates(column)["vertical"], (T - 1) / T)
    near(pattern_rates(row)["horizontal"], (T - 1) / T)
    rows, keys = jnp.arange(T) >= 5, jnp.arange(T) < 2
    logits = lens.run(MODEL, TOKENS, record=("logits",))[1]["logits"][:, 0]
    median = span_products(logits, rows, keys)
    near(median[1, 2], jnp.median(logits[1, 2, 5:, :2]))
    heads, value = lens.heads_of([(0, 3)], L, H), jnp.full((L, H), 0.7)
    weight = jnp.exp(jnp.where(heads, 0.7, 0)[:, None, :, None, None] * (rows[:, None] & keys))
    edit = span_bias(heads, rows, keys, value)
    near(maps_under(edit), maps_under(lens.KeyReweight(weight)))


def test_forgetting():
    span = (jnp.arange(T) > 0) & (jnp.arange(T) < 4)
    hidden = maps_under(hide_after(span, 5))
    assert not hidden[..., 5:, 1:4].any()
    near(hidden[0, :, :, :5], maps_under()[0, :, :, :5])
    near(pooled(jnp.ones((7, 3)), 4), 1)


def test_circuits():
    scores = jnp.array([[0.1, -3.0, 0.2, 0.0], [2.0, 0.3, 0.1, -0.1]])
    best = circuit(scores, 2)
    assert pairs(best).tolist() == [[0, 1], [1, 0]]
    assert overlap(best, best) == 1
    assert not emergent(best, best).any()
    assert emergent(best, ~best).sum() == 2
    keys = (jnp.arange(T) == 2) | (jnp.arange(T) == 3)
    maps = maps_under(force_attention(best, keys))
    near(maps[0, 0, 1, -1], keys / 2)
    near(maps[0, 0, 0], maps_under()[0, 0, 0])
    near(maps[0, 0, 1, :-1], maps_under()[0, 0, 1, :-1])


def test_copy_suppression_of_planted_heads_and_its_limits():
    """A head that writes minus the embedding it reads suppresses; plus, it copies."""
    config, weights = MODEL.config, MODEL.arrays()
    layers = jax.tree.map(jnp.zeros_like, weights["layers"])
    layers |= {name: jnp.ones_like(layers[name]) for name in ("attention_norm", "mlp_norm")}
    width, wide = config.width, jnp.eye(16)[:4]
    for head, sign in ((0, -1.0), (1, 1.0)):
        layers["output"] = (
            layers["output"].at[1, head * width : (head + 1) * width].set(sign * wide)
        )
    layers["value"] = layers["value"].at[1, :, :width].set(wide.T)
    table = jnp.zeros((11, 16)).at[:, :4].set(jax.random.normal(jax.random.key(6), (11, 4)))
    table = table / jnp.linalg.norm(table, axis=1, keepdims=True)
    model = Llama(config, weights=weights | {"layers": layers, "embed": table})
    tokens = jnp.arange(11)
    found = [ov_self_rank(model, 1, head, tokens, k=1) for head in (0, 1)]
    assert [float(x) for x in found[0]] == [1.0, 0.0]
    assert [float(x) for x in found[1]] == [0.0, 1.0]

    draw = lambda n, *shape: jax.random.normal(jax.random.key(n), shape)
    probs, written, resid = MAPS[0, 0], draw(7, T, 6), draw(8, T, 6)
    unembed = draw(9, 6, 10)
    everything = cspa(probs, written, unembed, resid, k_source=10, k_total=10 * T)
    near(everything, probs @ written, 1e-4)
    nothing = cspa(probs, written, unembed, resid, k_total=0)
    near(nothing, probs.sum(-1, keepdims=True) * written.mean(0), 1e-5)
    assert explained(jnp.zeros(3), jnp.ones(3)) == 1
    assert explained(jnp.ones(3), jnp.ones(3)) == 0
    once = projected(draw(10, 2, 6), draw(11, 6))
    near(projected(draw(10, 2, 6), once), once, 1e-5)
