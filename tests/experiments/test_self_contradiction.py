"""The experiment at toy sizes: its lessons, its grammar, its rounds, its claims."""

import functools
import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.self_contradiction import PRESETS, get_config
from experiments.self_contradiction import run_experiment
from experiments.self_contradiction import texts as texts_module
from experiments.self_contradiction.texts import Text, as_array, left, mitigated
from experiments.self_contradiction.writer import sample_lesson, text_grammar
from jattn.tasks import biographies as bio
from jattn.training import cli
from tests.tiny_language_model import use_it

TOY = ["steps=2", "batch_size=2", "dim=8", "heads=2", "layers=1", "hidden=8", "texts=1"]


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="self_contradiction", argv=argv)
    return stopped.value.code


@pytest.fixture(scope="module")
def world():
    return bio.biographies(jax.random.key(0))


def test_lessons(world):
    keys = jax.random.split(jax.random.key(2), 300)
    lessons = jax.jit(jax.vmap(functools.partial(sample_lesson, world)))(keys)
    kinds = {bio.START: 0, bio.ASK: 0, bio.REPHRASE: 0, bio.SAME: 0}
    for row, counts in zip(*map(np.asarray, lessons), strict=True):
        kinds[row[0]] += 1
        assert not (counts & (row == bio.PAD)).any()
        if row[0] == bio.SAME:
            pairs = row[2 : 2 + 4 * 6].reshape(4, 6)
            many = pairs[:, 0] == bio.FIRST_ATTRIBUTE + bio.ATTRIBUTES - 1
            wrong = (pairs[:, 1] != pairs[:, 4]) & ~many
            np.testing.assert_array_equal(pairs[:, 5], np.where(wrong, bio.YES, bio.NO))
            assert np.flatnonzero(counts).tolist() == [7, 13, 19, 25]
        if row[0] == bio.REPHRASE:
            middle, stop = np.flatnonzero((row == bio.SEP) | (row == bio.STOP))
            pairs = lambda tokens: sorted(zip(tokens[::2], tokens[1::2], strict=True))
            assert pairs(row[2:middle]) == pairs(row[middle + 1 : stop])
    assert min(kinds.values()) > 10
    assert kinds[bio.START] > 110


def test_the_grammar_allows_texts_and_nothing_else(world):
    draw = jax.jit(jax.vmap(lambda key: bio.sample_text(key, world, jnp.array(0))))
    texts = draw(jax.random.split(jax.random.key(3), 20))
    grammar = jax.tree.map(np.asarray, text_grammar())
    for text in np.asarray(texts):
        state = 0
        for token in text[2 : list(text).index(bio.END) + 1]:
            assert grammar.allowed[state, token]
            state = grammar.following[state, token]
        assert grammar.ends[state]
    ends = grammar.ends
    assert grammar.allowed[~ends].any(1).all()
    assert not grammar.allowed[:, : bio.FIRST_ATTRIBUTE][:, [bio.PAD, bio.ASK, bio.YES]].any()


def test_rounds_leave_what_is_certain_and_copy_what_is_not_flagged(world, monkeypatch):
    certain = world._replace(probability=jax.nn.one_hot(world.truth, bio.VALUES))
    keys = jax.random.split(jax.random.key(4), 8)

    def by_heart(of):
        """A model that says what texts say, whatever comes before."""

        def next_probability(llama, weights, prompts):
            found = np.zeros((len(prompts), bio.VOCABULARY))
            for row, prompt in enumerate(prompts):
                person = prompt[1] - bio.FIRST_PERSON
                attribute = prompt[-1] - bio.FIRST_ATTRIBUTE
                if 0 <= attribute < bio.ATTRIBUTES:
                    first = bio.FIRST_VALUE + attribute * bio.VALUES
                    found[row, first : first + bio.VALUES] = of.probability[person, attribute]
                else:
                    found[row] = 1 / bio.VOCABULARY
            return found

        return next_probability

    def run(of):
        rows = jax.jit(jax.vmap(lambda k, p: bio.sample_text(k, of, p)))(keys, jnp.arange(8))
        texts = [Text(*bio.parse(np.asarray(row))) for row in rows]
        monkeypatch.setattr(texts_module, "next_probability", by_heart(of))
        config = SimpleNamespace(votes=10, rounds=3, threshold=0.5)
        return texts, mitigated(config, None, None, texts, of, 0, judge="exact")

    texts, found = run(certain)
    assert not found["rate"].any()
    assert found["kept"].tolist() == [found["kept"][0]] * 5
    np.testing.assert_array_equal(found["text"], np.stack(list(map(as_array, texts))))
    _, found = run(world)
    assert found["rate"][0] > 0.1
    assert (np.diff(found["kept"]) <= 0).all()
    keep = found["keep"]
    assert not (keep[1:] & ~keep[:-1]).any()
    for text, before, after in zip(found["text"], keep[0], keep[-1], strict=True):
        for old, new in zip(left(text, before), left(text, after), strict=True):
            assert [clause for clause in old if clause in new] == new


@pytest.mark.slow
def test_it_states_its_claims(tmp_path):
    assert run_toy(tmp_path) in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == [
        "comparable", "trigger", "certain", "uncertain", "flagged", "rounds", "kept", "truth",
        "judge",
    ]  # fmt: skip
    for name in ("triggers", "rounds", "revised"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


@pytest.mark.slow
def test_a_language_model_judges(tmp_path, monkeypatch):
    use_it(monkeypatch, "experiments")
    assert run_toy(tmp_path, "study=judges", "pairs=8", "adapter_steps=2") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == ["judge-untaught", "judge-taught"]


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("texts=0", "texts: expected"),
        ("pairs=1", "pairs: expected at least 2, got 1"),
        ("threshold=1.0", "threshold: expected a number in (0, 1), got 1.0"),
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
        ("ambiguous=2.0", "ambiguous: expected a number in [0, 1], got 2.0"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
