"""Heads of a language model that knows nothing: lists of facts, and claims of made-up numbers."""

import importlib
from typing import Any

import numpy as np
import pytest

from configs.language_model_heads import PRESETS, get_config
from experiments.language_model_heads import run_experiment
from experiments.language_model_heads.facts import facts
from jattn.training import Run
from tests.tiny_language_model import tiny_language_model

TINY = tiny_language_model()
# Studies have the names of their modules.
patterns, retrieval, rhythms, suppression = (
    importlib.import_module(f"experiments.language_model_heads.{name}")
    for name in ("patterns", "retrieval", "rhythms", "suppression")
)


def test_facts_say_where_their_answers_are():
    found = facts(TINY.tokenizer, np.random.default_rng(0), 5, 4)
    for tokens, answer, needle in zip(*map(np.asarray, found), strict=True):
        assert answer.sum() == needle.sum() == 3
        np.testing.assert_array_equal(tokens[answer], tokens[needle])
        assert answer.argmax() > needle.argmax()
        asked = int(answer.argmax())  # behind the name and a colon, as the needle is
        np.testing.assert_array_equal(
            tokens[asked - 2 : asked], tokens[needle.argmax() - 2 : needle.argmax()]
        )


def test_claims_about_planted_heads():
    """Head (1, 2) induces and is needed; the heads with diagonal maps look one back."""
    score = lambda *heads: sum(np.eye(1, 12, i).reshape(3, 4) for i in heads)
    found = dict(
        induction=score(6), duplicate=score(0), previous=score(3), diagonal=score(3, 6) + 0.1,
        vertical=score(11), first=0.2 + 0.6 * score(11),
        clean=np.array([2.0, 3.0]), without=np.array([12.0, 3.01]),
        random=np.array([[3.0, 3.1], [2.5, 3.3]]),
    )  # fmt: skip
    claims = {claim.id: claim for claim in patterns.claims_of(get_config(), found)}
    assert claims["induction"].measured == 1
    assert "(1, 2)" in claims["induction"].note
    assert claims["induction-needed"].measured == pytest.approx(10.0)
    assert claims["induction-specific"].measured == pytest.approx(0.01 / 3)
    assert claims["induction-double"].holds
    assert claims["vertical-rates"].measured > 1


def test_rhythms_of_a_text():
    found = rhythms.measured(TINY)
    length = len(found["tokens"])
    assert found["waad"].shape == found["fai"].shape == found["entropy"].shape == (length,)
    assert ((found["waad"] >= 0) & (found["waad"] <= 10)).all()
    assert found["waad"][0] == 0


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    for module in (patterns, retrieval, rhythms, suppression):
        monkeypatch.setattr(module, "language_model", lambda path: TINY)
    config: Any = get_config()
    config.update(dict(sequences=1, period=8, silenced=2, draws=1, lists=2, facts=3, tokens=8))
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    assert len({claim.id for claim in claims}) == len(claims) == 21
    assert len(list((tmp_path / "figures").glob("*.png"))) == 5
    scores = np.load(tmp_path / "arrays" / "suppression.npz")
    assert scores["suppression"].shape == (2, 4)


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.period > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
