"""Questions, edits of heads and maps, and claims, on a model that knows nothing."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from configs.language_model_faithfulness import PRESETS, get_config
from experiments.language_model_faithfulness import STUDIES, run_experiment
from experiments.language_model_faithfulness import questions as module
from experiments.language_model_faithfulness.questions import (
    FACT,
    FACTS,
    VALUE,
    log_probs,
    of_answers,
    questions,
)
from jattn.lens.edits import LogitBias
from jattn.training import Run
from tests.tiny_language_model import tiny_language_model, use_it

LANGUAGE = tiny_language_model()
RNG = np.random.default_rng(0)


def test_questions_are_equally_long_and_name_their_facts():
    some = questions(LANGUAGE, 6, RNG)
    decode = LANGUAGE.tokenizer.decode
    for number, text in enumerate(np.asarray(some.texts.tokens)):
        asked = number % FACTS
        fact = decode(text[asked * FACT : (asked + 1) * FACT])
        assert decode([some.answers[number]]) == fact.split("called")[1].removesuffix(".")
        assert text[asked * FACT + VALUE] == some.answers[number]
        kind = fact.split()[1]
        assert decode(text).endswith(f"Answer: The name of the {kind} is")
    assert (some.texts.last == some.length - 1).all()
    assert some.fact(some.asked).sum(1).tolist() == [FACT - 1, FACT, FACT] * 2
    assert (some.context() == some.fact(jnp.arange(FACTS)).any(0)).all()


def test_hidden_facts_have_no_part_in_the_answer():
    """With all facts hidden, questions about the same kind have the same answers."""
    some = questions(LANGUAGE, 3, RNG)
    hide = LogitBias(jnp.where(some.context(), -jnp.inf, 0.0)[None, None, None, None])
    other = some._replace(texts=some.texts._replace(tokens=some.texts.tokens.at[:, 2:18].set(3)))
    np.testing.assert_allclose(
        log_probs(LANGUAGE, some, [hide]), log_probs(LANGUAGE, other, [hide]), atol=1e-5
    )
    seen = log_probs(LANGUAGE, some) - log_probs(LANGUAGE, other)
    assert np.abs(seen).max() > 1e-4
    logs = np.array([[1.0, 2.0, 3.0]] * 3)
    assert of_answers(some, logs).tolist() == [1.0, 2.0, 3.0]


def test_it_runs(tmp_path, monkeypatch):
    config: Any = get_config()
    config.update({"questions": 3, "chosen_by": 3, "draws": 1, "count": 2})
    config.factors, config.biases, config.emphasis = (1.0, 2.0), (0.0, 1.0), (0.0, 0.7)
    config.betas = (0.0, 1.0)
    use_it(monkeypatch, "experiments.language_model_faithfulness", layers=9)
    with Run.open(tmp_path, config, name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert len(claims) == 20
    assert all(np.isfinite(claim.measured) for claim in claims.values() if claim.id[:3] != "sal")
    kept = {study: np.load(tmp_path / "arrays" / f"{study}.npz") for study in STUDIES}
    near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
    heads, maps = kept["heads"], kept["maps"]
    # What changes nothing: a factor of 1, a bias, a strength and a beta of 0.
    near(heads["reinforced"][0], heads["plain"])
    near(heads["reinforced_random"][0, 0], heads["plain"])
    near(heads["everywhere"][0], heads["plain"])
    near(maps["emphasis"][0], maps["plain"])
    near(maps["locore"][0], maps["plain"])
    near(maps["story"][0], maps["story"][1])
    assert np.abs(heads["everywhere"][1] - heads["plain"]).max() > 1e-6
    # Hidden behind the last row, facts are all seen.
    near(kept["forgetting"]["loss"][-1], kept["forgetting"]["plain"])
    for study in STUDIES:
        assert (tmp_path / "figures" / f"{study}.png").stat().st_size > 5_000


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.questions % FACTS == config.chosen_by % FACTS == 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
    assert len(module.NAMES) == len(set(module.NAMES))
