"""Readers and models that forget, at toy sizes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.language_model_training import PRESETS, get_config
from experiments.language_model_training import run_experiment
from experiments.language_model_training.readers import (
    KINDS,
    Batch,
    Reviews,
    loss_of,
    model_of,
    review,
)
from jattn.training import Run


def toy() -> Any:
    config: Any = get_config()
    config.reviews.update({"vocabulary": 30, "keywords": 4, "length": 6})
    config.reviews.update({"train": 40, "labelled": 8, "test": 16})
    config.readers.update({"dim": 4, "hidden": 4, "seeds": 2, "steps": 2, "batch_size": 4})
    config.forget.update({"seeds": 1, "facts": 6, "forgotten": 2, "steps": 200})
    config.forget.update({"shift_steps": 60})
    config.parallel.mesh = {"data": 1}
    return config


def test_two_of_three_words_that_count_are_on_a_reviews_side():
    config = toy().reviews
    found = jax.vmap(lambda key: review(key, config))(jax.random.split(jax.random.key(0), 50))
    tokens, good = np.asarray(found.tokens), np.asarray(found.good)
    liked, disliked = (tokens < 4).sum(1), ((tokens >= 4) & (tokens < 8)).sum(1)
    np.testing.assert_array_equal(liked + disliked, 3)
    np.testing.assert_array_equal(liked == 2, good > 0)
    assert 10 < good.sum() < 40


def test_losses_without_a_perturbation():
    """At eps = 0 AT is twice the loss, and VAT adds nothing."""
    config = toy()
    settings = config.readers.copy_and_resolve_references()
    settings.update({"adversarial": 0.0, "virtual": 0.0})
    model = model_of(config)
    params = model.init(jax.random.key(0))
    some = Reviews(jnp.arange(24).reshape(4, 6), jnp.array([0.0, 1.0, 1.0, 0.0]))
    value = lambda kind, s: float(loss_of(model, params, Batch(some, some), kind, s))
    plain = value("plain", settings)
    assert value("adversarial", settings) == pytest.approx(2 * plain, rel=1e-5)
    assert value("virtual", settings) == pytest.approx(plain, rel=1e-5)
    assert value("adversarial", config.readers) > 2 * plain
    assert value("virtual", config.readers) > plain


def claims_of(study, folder):
    config = toy()
    config.study = study
    with Run.open(folder, config, name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert (folder / "figures" / f"{study}.png").stat().st_size > 5_000
    return claims


@pytest.mark.slow
def test_readers(tmp_path):
    assert len(claims_of("readers", tmp_path)) == 3
    for kind in KINDS:
        row = np.load(tmp_path / "arrays" / f"reader_{kind.replace(' ', '_')}.npz")
        assert ((row["accuracy"] >= 0) & (row["accuracy"] <= 1)).all()
        assert (np.abs(row["agreement"]) <= 1).all()


def test_unlearning(tmp_path):
    claims = claims_of("unlearning", tmp_path)
    assert claims["learned"].holds
    assert len(claims) == 4
    found = np.load(tmp_path / "arrays" / "unlearning.npz")
    assert found["shifted"].shape == found["climbed"].shape == (1, 20, 2)
    # Climbing the loss of two facts, they are forgotten.
    assert found["climbed"][0, -1, 0] == 0


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.forget.shift_steps % 20 == 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
