"""The experiment at toy sizes: its items, its model, its claims."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.agnosia import PRESETS, get_config
from experiments.agnosia import run_experiment
from experiments.agnosia.figures import ANSWERS as WORDS
from experiments.agnosia.figures import question_of
from experiments.agnosia.items import (
    ANSWERS,
    ASPECT,
    FIRST,
    OPTION,
    OPTIONS,
    QUESTIONS,
    held_out,
    items,
    words,
)
from experiments.agnosia.reader import model_of, sampler, scorer
from experiments.agnosia.study import STAGES, UNSEEN, claims_of, rates_of
from jattn.tasks import scene_items as si
from jattn.training import cli

TOY = [
    "scenes=250", "questions=40", "test_size=16", "dim=8", "heads=2", "layers=1", "batch_size=4",
    "coarse_steps=2", "fine_steps=2", "colour_steps=2",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="agnosia", argv=argv)
    return stopped.value.code


@pytest.fixture(scope="module")
def asked():
    seen = jnp.asarray(held_out(4))
    return items(jax.random.key(1), si.draw_scenes(jax.random.key(0), 300, allowed=seen), 48)


def test_items_have_answers_in_equal_numbers(asked):
    rows = np.asarray(asked.rows)
    assert rows.shape == (7, 48, 7)
    for aspect, those in enumerate(rows):
        assert (those[:, ASPECT] == aspect).all()
        share = np.bincount(those[:, OPTION], minlength=OPTIONS[aspect])
        np.testing.assert_array_equal(share, 48 // OPTIONS[aspect])
    flat = rows.reshape(-1, 7)
    found = si.answer(asked.scenes[flat[:, 0]], *jnp.asarray(flat[:, 1:6].T))
    assert found.valid.all()
    option = np.asarray(found.answer) - (flat[:, 1] == si.COUNT)
    np.testing.assert_array_equal(option, flat[:, OPTION])
    assert len({tuple(row) for row in flat[:, :6]}) > 150
    tokens = np.asarray(words(asked.rows))
    assert tokens.min() >= 0
    assert tokens.max() < QUESTIONS
    assert ANSWERS == len(WORDS) == FIRST[-1] + OPTIONS[-1]


def test_a_reader_of_scenes_is_perfect_and_guesses_are_not(asked):
    truth = jax.nn.one_hot(asked.rows[..., OPTION], 4)
    np.testing.assert_array_equal(rates_of(np.asarray(truth), asked).agnosia, 0)
    np.testing.assert_allclose(rates_of(np.zeros((7, 48, 4)), asked).agnosia, 1)


def test_pairs_that_are_held_out():
    seen = held_out(4)
    assert (~seen).sum(0).tolist() == (~seen).sum(1).tolist() == [1, 1, 1, 1]
    scenes = si.draw_scenes(jax.random.key(0), 250)
    found = items(jax.random.key(1), scenes, 20, aspects=UNSEEN[:2], only=~seen, there=True)
    existence = np.asarray(found.rows[0])
    assert (existence[:, OPTION] == 1).all()
    assert not seen[existence[:, 2], existence[:, 3]].any()


def test_the_model_sees_the_image_and_reads_the_question(asked):
    config: Any = get_config()
    config.update({"dim": 16, "heads": 2, "layers": 1})
    model = model_of(config)
    params = model.init(jax.random.key(0))
    scores = scorer(model)
    seen, blind = scores(params, asked), scores(params, asked, blind=True)
    assert seen.shape == (7, 48, 4)
    assert np.isneginf(seen[si.EXISTENCE, :, 2:]).all()
    assert np.ptp(seen[si.COUNT], axis=0).max() > 1e-4  # one question, other images
    assert np.ptp(blind[si.COUNT], axis=0).max() < 1e-5
    image, question, answer = sampler(asked)(jax.random.key(3))
    assert image.shape == (32, 32, 3)
    assert question.shape == (5,)
    assert 0 <= answer < ANSWERS


def test_what_claims_need():
    table = {f"{stage} agnosia": np.full((1, 7), 1.0) for stage in STAGES}
    table["coarse agnosia"][:, si.COUNT] = 0
    table["fine agnosia"][0] = (0.1, 0, 0, 0, 0.5, 0.9, 0.1)
    table["colour only agnosia"][:, si.COLOUR] = 0
    table |= {"held out": np.array([[1.6, 1.3, 1.1, 0.05, 0.4]]), "blind": np.ones((1, 7))}
    table |= {"coarse items": np.array([[0.2, 0.0]]), "yes": np.array([[0.9, 0.9]])}
    claims = {claim.id: claim for claim in claims_of(get_config(), table)}
    assert all(claim.holds for claim in claims.values())
    table["held out"][0, 2] = 0.9
    table["fine agnosia"][0, si.RELATION] = 0.3
    failing = {claim.id for claim in claims_of(get_config(), table) if not claim.holds}
    assert failing == {"binding", "uneven"}


@pytest.mark.slow
def test_it_runs(tmp_path):
    assert run_toy(tmp_path) in (0, 3)
    assert len(json.loads((tmp_path / "claims.json").read_text())) == 10
    for figure in ("rates", "examples"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_questions_in_words_and_bad_settings(tmp_path, capsys):
    asked = {
        (si.EXISTENCE, 0, 1, -1, -1): "is there a green square?",
        (si.COUNT, -1, -1, -1, -1): "how many?",
        (si.SHAPE, -1, 2, -1, -1): "shape of the blue thing?",
        (si.RELATION, 0, 0, 1, 3): "red square: where from yellow disc?",
    }
    for row, text in asked.items():
        assert question_of(np.array([0, *row, 0])) == text
    for setting, message in (
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
        ("held_out=5", "held_out: expected 1 to 4 pairs, got 5"),
        ("scenes=100", "scenes: expected at least 200, got 100"),
        ("test_size=4", "test_size: expected at least 8, got 4"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.fine_steps > config.colour_steps
