"""Self-contradiction, injection, judged search, pools of instructions: what must hold exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.systems import injection, judged_search, self_specialization
from jattn.systems import self_contradiction as sc

rng = np.random.default_rng(0)


def text_and_alternatives(certainty, votes=5, rounds=4):
    """A text of 30 sentences of up to 3 facts with 5 values, and objects drawn for each."""
    facts = np.stack(
        [np.broadcast_to(np.arange(30)[:, None], (30, 3)), rng.integers(0, 4, (30, 3)),
         rng.integers(0, 5, (30, 3))], -1,
    )  # fmt: skip
    facts[rng.random((30, 3)) < 0.3] = -1
    agree = rng.random((rounds, 30, 3, votes)) < certainty
    other = (facts[..., 2:] + 1 + rng.integers(0, 4, agree.shape)) % 5
    return jnp.asarray(facts), jnp.asarray(np.where(agree, facts[..., 2:], other))


def test_mitigation_only_takes_away():
    text, others = text_and_alternatives(0.5)
    functional = jnp.array([True, True, True, False])
    found = sc.mitigate(text, others, functional)
    assert found.flagged[0] > 5
    for before, after in itertools.pairwise(found.keep):
        assert not (after & ~before).any()
    for number in range(4):
        touched = (found.keep[number] != found.keep[number + 1]).any(1)
        acted = np.isin(found.decision[number], (sc.REVISED, sc.DROPPED))
        np.testing.assert_array_equal(touched, acted)
    assert ((found.decision[-1] == sc.REVISED) == False).all()  # noqa: E712  the last one drops
    # No fact is left that the last round's judge would flag.
    again = sc.mitigate(jnp.where(found.keep[-1][..., None], text, -1), others[-1:], functional)
    assert again.flagged.sum() == 0
    # Predicates that may have many objects never contradict.
    many = np.asarray(text)[..., 1] == 3
    assert (found.score[:, many] == 0).all()


def test_no_round_drops_and_a_certain_model_is_left_alone():
    text, others = text_and_alternatives(0.5)
    functional = jnp.ones(4, bool)
    once = sc.mitigate(text, others[:1], functional)
    hit = (once.score[0] > 0.5).any(1)
    np.testing.assert_array_equal(once.decision[0] == sc.DROPPED, hit)
    assert not once.keep[-1][hit].any()
    slow = sc.mitigate(text, jnp.broadcast_to(others[:1], others.shape), functional)
    assert slow.keep[-1].sum() > once.keep[-1].sum()  # rounds keep more than dropping at once
    certain, same = text_and_alternatives(1.0)
    found = sc.mitigate(certain, same, functional)
    assert found.flagged.sum() == 0
    np.testing.assert_array_equal(found.keep[-1], found.keep[0])
    assert not found.decision.any()


def test_rates_are_those_of_samples():
    p = jnp.array([0.5, 0.3, 0.2])
    first, second = jax.random.categorical(jax.random.key(0), jnp.log(p), shape=(2, 20_000))
    assert abs(float((first != second).mean()) - float(sc.contradiction_rate(p))) < 0.011
    assert abs(float((first != 0).mean()) - float(sc.contradiction_rate(p, greedy=True))) < 0.011
    votes = jax.random.categorical(jax.random.key(1), jnp.log(p), shape=(20_000, 10))
    measured = [float(((votes != o).mean(1) > 0.5).mean()) for o in range(3)]
    np.testing.assert_allclose(measured, sc.flag_rate(p, 10), atol=0.011)
    one_hot = jnp.array([0.0, 1.0])
    assert float(sc.contradiction_rate(one_hot)) == 0
    assert sc.flag_rate(one_hot, 10)[1] == 0


def test_injection_plans():
    counts = [injection.injection_plan(n, 0.2).count for n in (2, 3, 5, 6, 8, 10, 13)]
    assert counts == [0, 1, 1, 1, 2, 2, 3]
    plan = injection.injection_plan(6, 0.2)
    assert plan.weights[0] == 0
    np.testing.assert_allclose(
        plan.weights[1:], [0.12926, 0.17258, 0.20581, 0.23383, 0.25852], atol=1e-5
    )
    assert plan.weights[-1] / plan.weights[1] == pytest.approx(2)
    np.testing.assert_allclose(injection.injection_plan(6, 0.2, late=False).weights[1:], 0.2)
    assert not injection.injection_plan(2, 0.2).usable
    assert not injection.injection_plan(1, 1.0).usable  # the first sentence stays
    noise = jax.random.gumbel(jax.random.key(0), (20_000, 6))
    chosen = injection.choose_sentences(jnp.asarray(plan.weights, jnp.float32), noise, 1)
    share = np.bincount(np.asarray(chosen[:, 0]), minlength=6) / 20_000
    np.testing.assert_allclose(share, plan.weights, atol=0.011)
    three = injection.choose_sentences(jnp.asarray(plan.weights, jnp.float32), noise[:50], 3)
    assert (three[:, 1:] > three[:, :-1]).all()
    assert (three > 0).all()


def test_guides_are_likely_and_not_named():
    presence = jnp.asarray(rng.random((12, 8)) < 0.4)
    counts = injection.cooccurrence(presence)
    np.testing.assert_array_equal(counts, counts.T)
    assert (jnp.diag(counts) == 0).all()
    guides = np.asarray(injection.guide_candidates(counts, presence, 10))
    assert guides.shape == (12, 8, 10)
    for caption, key, rank in zip(*np.nonzero(guides >= 0), strict=True):
        guide = guides[caption, key, rank]
        assert not presence[caption, guide]
        assert counts[key, guide] > 0
        assert rank == 0 or counts[key, guides[caption, key, rank - 1]] >= counts[key, guide]


def test_chair_of_captions_that_were_true():
    truth = jnp.asarray(rng.random((30, 9)) < 0.5)
    right = truth.astype(int)
    assert [float(x) for x in injection.chair(truth, right)] == pytest.approx([0, 0, 1])
    sentences = np.asarray(right.sum(1))
    absent = jnp.argmin(truth, axis=1)
    worse = right.at[jnp.arange(30), absent].add(1)
    found = injection.chair(truth, worse)
    assert float(found.instances) == pytest.approx(30 / (sentences.sum() + 30))
    assert float(found.sentences) == 1


def test_rewards_of_judgements():
    judge = jnp.asarray(rng.integers(-1, 2, (40, 4)))
    utility = jnp.asarray(rng.random((40, 4)), jnp.float32)
    step = judged_search.judge_rewards(judge, utility)
    match = jnp.asarray(rng.integers(0, 2, 40))
    turns = jnp.full(40, 4)
    total = judged_search.trajectory_reward(step, match, turns, judge >= 0)
    assert (total >= -0.6 * 4).all()
    assert (total <= 1 + 0.3 * 4 + 1e-6).all()
    np.testing.assert_allclose(total - match, step.sum(1), atol=1e-6)
    # A right judgement turned over costs 0.9 where it becomes a yes, 0.6 where it becomes a no.
    ideal = (utility > 0.7).astype(int)
    lost = judged_search.judge_rewards(ideal, utility) - judged_search.judge_rewards(
        1 - ideal, utility
    )
    np.testing.assert_allclose(lost, jnp.where(ideal == 0, 0.9, 0.6), atol=1e-6)
    # Four right noes pay more than an answer, unless their mean counts.
    noes, junk = jnp.zeros((1, 4), int), jnp.zeros((1, 4))
    farmed = judged_search.judge_rewards(noes, junk)
    none = jnp.zeros(1, int)
    pay = lambda how: float(
        judged_search.trajectory_reward(farmed, none, none + 4, noes >= 0, how=how)[0]
    )
    assert pay("sum") > 1 > pay("mean")
    unanswered = judged_search.released_regex(judge, utility, match * 0, jnp.zeros(40, bool))
    assert not unanswered.total.any()


def test_masks_of_contexts():
    kind = jnp.array([0, 1, 1, 2, 2, 1, 2, 1, 1])
    observation = jnp.array([-1, -1, -1, 0, 0, -1, 1, -1, -1])
    ends = jnp.array([5, 7])
    found = judged_search.context_masks(kind, observation, jnp.array([0, 1]), ends)
    assert not (found.hard & ~found.soft).any()
    assert found.hard[5, 3]
    assert not found.hard[6, 3]
    assert found.hard[8, 6]
    assert not found.loss[kind != 1].any()
    kept = judged_search.context_masks(kind, observation, jnp.array([1, 1]), ends)
    np.testing.assert_array_equal(kept.hard, kept.soft)


def longest_common(a, b):
    best = 0
    for size in range(min(len(a), len(b)), 0, -1):
        subsequences = set(itertools.combinations(a, size))
        if subsequences & set(itertools.combinations(b, size)):
            best = size
            break
    return best


def test_rouge_and_the_pool():
    rows = rng.integers(0, 4, (12, 7))
    rows[np.arange(7) >= rng.integers(2, 8, (12, 1))] = -1
    found = self_specialization.rouge_l(rows, rows)
    np.testing.assert_allclose(found, found.T)
    plain = [tuple(row[row >= 0]) for row in rows]
    for (i, a), (j, b) in itertools.product(enumerate(plain), enumerate(plain)):
        assert found[i, j] == pytest.approx(2 * longest_common(a, b) / (len(a) + len(b)))
        assert (found[i, j] == 1) == (a == b)
    kept = self_specialization.keep_different(rows, 3, 0.7)
    pool = rows[[0, 1, 2, *kept]]
    likeness = self_specialization.rouge_l(pool, pool)
    assert likeness[np.triu_indices(len(pool), 1)][3:].min() >= 0
    for index in range(3, len(pool)):
        assert likeness[index, :index].max() < 0.7
    again = self_specialization.keep_different(pool, 3, 0.7)
    np.testing.assert_array_equal(again, np.arange(3, len(pool)))


@pytest.mark.usefixtures("plain_checks")
def test_bad_input():
    with pytest.raises(ValueError, match="presence: expected at least one caption, got none"):
        injection.cooccurrence(jnp.zeros((0, 3), bool))
    with pytest.raises(ValueError, match="sentences: expected at least 1, got 0"):
        injection.injection_plan(0, 0.2)
    with pytest.raises(ValueError, match="truth: expected at least one caption, got none"):
        injection.chair(jnp.zeros((0, 3), bool), jnp.zeros((0, 3), int))
    with pytest.raises(ValueError, match="how: expected one of 'sum', 'mean', got 'max'"):
        judged_search.trajectory_reward(
            jnp.zeros((1, 1)), jnp.zeros(1, int), jnp.zeros(1, int), jnp.ones((1, 1), bool),
            how="max",  # type: ignore[arg-type]
        )  # fmt: skip
    with pytest.raises(ValueError, match="seeds: expected at least 1, got 0"):
        self_specialization.keep_different(np.zeros((2, 2), int), 0)
    with pytest.raises(ValueError, match="sequences: expected at least seeds=3, got 2"):
        self_specialization.keep_different(np.zeros((2, 2), int), 3)
    with pytest.raises(ValueError, match="votes: expected at least 1, got 0"):
        sc.flag_rate(jnp.ones(1), 0)
