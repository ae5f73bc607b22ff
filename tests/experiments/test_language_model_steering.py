"""Steering a model that knows nothing: every study, at toy sizes; and a missing model."""

from typing import Any

import numpy as np
import pytest

from configs.language_model_steering import PRESETS, get_config
from experiments.language_model_steering import STUDIES, run_experiment
from experiments.language_model_steering import words as module
from experiments.language_model_steering.concepts import _probe
from jattn.pretrained.smollm2 import HOW_TO_GET_IT
from jattn.training import Run, cli
from tests.tiny_language_model import use_it


def toy() -> Any:
    config: Any = get_config()
    config.heads.update({"draws": 1, "steps": 3, "train": 8, "batch_size": 4})
    config.heads.counts, config.heads.strengths = (1, 2, 4), (1.0,)
    config.injection.update({"prompts": 3, "demonstrations": 2, "steps": 30, "batch_size": 4})
    config.channels.update({"count": 4, "draws": 1, "layer": 1})
    config.channels.alphas = (0.0, 8.0)
    config.concepts.update({"count": 4, "baseline": 4})
    config.concepts.strengths = (0.0, 8.0, 64.0)
    config.feedback.update({"questions": 4})
    config.feedback.examples = (0, 2)
    return config


def test_it_runs(tmp_path, monkeypatch):
    use_it(monkeypatch, "experiments.language_model_steering", layers=4)
    config = toy()
    with Run.open(tmp_path, config, name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert len(claims) == 4 + 7 + 4 + 5 + 4
    kept = {study: np.load(tmp_path / "arrays" / f"{study}.npz") for study in STUDIES}
    # Strength 0 changes nothing.
    assert np.abs(kept["channels"]["chosen"][0]).max() == 0
    assert np.abs(kept["channels"]["chosen"][1]).max() > 0
    assert kept["concepts"]["auc"][0] == pytest.approx(0.5)
    assert kept["concepts"]["true"][0] == pytest.approx(kept["concepts"]["false"])
    assert (kept["concepts"]["ranks"][0] != kept["concepts"]["ranks"][-1]).any()
    # A model of random weights learns nothing that helps with other words, but it is moved.
    assert (np.diag(kept["injection"]["loss"]) != kept["injection"]["plain"]).all()
    assert ((kept["injection"]["alpha"] > 0) & (kept["injection"]["alpha"] < 1)).all()
    for study in STUDIES:
        assert (tmp_path / "figures" / f"{study}.png").stat().st_size > 5_000


def test_a_probe_by_hand():
    clean = np.zeros((4, 3)) + np.arange(4)[:, None] * np.array([0, 0, 1.0])
    assert _probe(np.tile(clean, (4, 1, 1)), clean) == 0.5
    assert _probe(np.tile(clean, (4, 1, 1)) + np.array([1.0, 0, 0]), clean) == 1.0


def test_without_the_model_it_is_one_line(tmp_path, monkeypatch, capsys):
    from experiments import language_model as loader

    loader.language_model.cache_clear()
    monkeypatch.setattr("jattn.pretrained.smollm2.PACKAGE", "nowhere_to_be_found")
    argv = ["x", f"--workdir={tmp_path / 'run'}", "--config=language_model_steering:small"]
    with pytest.raises(SystemExit) as caught:
        cli.main(run_experiment, name="language_model_steering", argv=argv)
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said == f"language_model_steering: model: {HOW_TO_GET_IT}"


def test_words_are_different():
    for name in (
        "ANIMALS",
        "THINGS",
        "CONCEPTS",
        "BASELINE",
        "OPENINGS",
        "SEA",
        "MONEY",
        "CONTROLS",
    ):
        words = getattr(module, name)
        assert len(words) == len(set(words))
    assert not set(module.CONCEPTS) & set(module.BASELINE)
    assert len(module.SEA) == len(module.MONEY)


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.heads.steps > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
