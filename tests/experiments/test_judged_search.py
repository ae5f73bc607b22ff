"""The experiment at toy sizes: grammar, demonstrations, scores, payment, claims."""

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.judged_search import PRESETS, get_config
from experiments.judged_search import episodes as ep
from experiments.judged_search import run_experiment
from experiments.judged_search.judges import RELATIONS, observations
from experiments.judged_search.tabular import HOPS, Policy, noise_of, play, worth
from jattn.nn.rollout import Rollout
from jattn.tasks import fictional_search as task
from jattn.training import cli
from tests.tiny_language_model import use_it

TOY = [
    "tabular_seeds=1", "tabular_updates=60", "dim=8", "heads=2", "layers=1", "hidden=8", "steps=2",
    "batch_size=2", "turns=2", "updates=2", "questions=2", "group=2", "test=20",
]  # fmt: skip
TURNS = 3


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="judged_search", argv=argv)
    return stopped.value.code


@pytest.fixture(scope="module")
def shown():
    """Demonstrations with their questions."""

    def one(key):
        return ep.demonstration(key, TURNS), task.sample_question(jax.random.split(key)[0])

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 150))


def test_the_grammar_allows_demonstrations_and_no_answer_behind_no(shown):
    rules = jax.tree.map(np.asarray, ep.grammar(TURNS))
    lesson, _ = jax.tree.map(np.asarray, shown)
    for tokens, counts in zip(*lesson, strict=True):
        state = 0
        for token in tokens[counts]:
            if rules.calls[state]:
                state = rules.following[state, 0]
            assert rules.allowed[state, token]
            state = rules.following[state, token]
            if token == task.NO:
                assert not rules.allowed[state, task.ANSWER]
        assert rules.ends[state]
        assert not counts[: task.PROMPT].any()
    at_once = jax.tree.map(np.asarray, ep.grammar(0))
    assert np.flatnonzero(at_once.allowed[0]).tolist() == [task.ANSWER]


def test_scores_of_demonstrations(shown):
    lesson, asked = shown
    length = (lesson.tokens > 0).sum(1)
    none = jnp.zeros(lesson.tokens.shape, jnp.int32)
    made = Rollout(lesson.tokens, length, lesson.counts, none, 0.0 * none, length > 0)
    found = jax.tree.map(np.asarray, jax.jit(lambda m, a: ep.scores(m, a, TURNS))(made, asked))
    tokens = np.asarray(lesson.tokens)
    for row in range(150):
        verdicts = [1 if t == task.YES else 0 for t in tokens[row] if t in (task.YES, task.NO)]
        np.testing.assert_array_equal(found.judge[row, : len(verdicts)], verdicts)
        assert (found.judge[row, len(verdicts) :] == -1).all()
        body, done = tokens[row, task.PROMPT :], 0
        for turn, yes in enumerate(verdicts):
            words = body[turn * ep.TURN + ep.QUERY :][: ep.FOUND].reshape(ep.TOP, -1)
            gold = np.asarray(asked.gold[row])
            useful = done < asked.hops[row] and (words == gold[min(done, 1)]).all(1).any()
            assert found.path[row, turn] == useful
            done += useful and yes
        assert found.faithful[row] == (done == asked.hops[row])
        end = int(length[row])
        right = (tokens[row, end - 2 : end] == np.asarray(asked.answer[row])).all()
        answered = (tokens[row] == task.ANSWER).any()
        assert found.match[row] == (right and answered)
        if found.faithful[row]:
            assert found.match[row]
    assert 0.1 < found.match.mean() < 0.9


def test_payment(shown):
    judge = jnp.array([[0, 0, 0], [1, 1, -1]])
    useful = jnp.array([[0.0, 0, 0], [1, 1, 0]])
    match = jnp.array([0, 1])
    found = ep.Scores(match, judge, useful, 0 * useful, match > 0)
    pay = lambda *of: ep.reward(found, ep.Pay(*of)).tolist()
    assert pay(0.0, 0.0) == [0, 1]
    assert pay(1.0, 0.0) == pytest.approx([0.9, 1.6])  # three noes to junk
    assert pay(0.0, 1.0) == pytest.approx([0.3, 1.3])
    assert pay(1.0, 0.0, 0.0) == pytest.approx([0.9, 1 - 1.2])  # by utility of answers


def test_the_best_tabular_policy_is_right_three_times_in_four():
    large = 30.0
    # Good queries, judgements by the cue, an answer behind two accepted things.
    best = Policy(jnp.full(5, large), jnp.array([-large, large]),
                  jnp.where(jnp.arange(5) >= HOPS, large, -large))  # fmt: skip
    found = play(best, noise_of(jax.random.key(0), 40_000))
    assert float(found.match.mean()) == pytest.approx(0.7466, abs=0.008)
    judged = found.judge >= 0
    right = ((found.judge == 1) == found.path) & judged
    assert float(right.sum() / judged.sum()) == pytest.approx(0.85, abs=0.01)
    # On and on: what is whole is spoiled.
    farming = best._replace(answer=jnp.full(5, -large))
    more = play(farming, noise_of(jax.random.key(0), 40_000))
    assert int((more.judge >= 0).sum(1).min()) == 4
    assert float(more.match.mean()) == pytest.approx(0.610, abs=0.01)
    pay = ep.Pay(1.0, 0.0)
    assert float(worth(more, pay).mean()) > float(worth(found, pay).mean())
    mean = ep.Pay(0.0, 1.0)
    assert float(worth(more, mean).mean()) < float(worth(found, mean).mean())


@pytest.mark.slow
def test_studies_state_their_claims(tmp_path):
    assert run_toy(tmp_path, "study=tabular,agents") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == [
        "tabular-answer", "tabular-searches", "tabular-farming", "tabular-farming-judges",
        "tabular-farming-cost", "tabular-mean", "tabular-mean-early", "tabular-utility", "gain",
        "sooner", "farming", "utility-two", "utility-one", "budget", "faithful", "closed",
    ]  # fmt: skip
    for name in ("tabular", "agents"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("group=1", "group: expected at least 2 answers to each question, got 1"),
        ("updates=1", "updates: expected at least 2, got 1"),
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0


def test_observations_say_whether_the_next_fact_is_there():
    texts, labels = observations(jax.random.key(0), 40)
    assert labels.sum() == 20
    assert len(set(texts)) == 40
    for text, useful in zip(texts, labels, strict=True):
        asked, found = re.findall(r"(?:Question|Found): (.*)", text)
        *_, first = re.findall("|".join(RELATIONS), asked)
        who = asked.rsplit(" of ", 1)[1].rstrip("?")
        assert found.count(f" of {who} is ") == 2
        assert (f"The {first} of {who} is " in found) == useful


@pytest.mark.slow
def test_a_language_model_judges(tmp_path, monkeypatch):
    use_it(monkeypatch, "experiments")
    assert run_toy(tmp_path, "study=judges", "observations=8", "adapter_steps=2") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == ["judge-untaught", "judge-taught"]
