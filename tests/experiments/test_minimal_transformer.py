"""Transformers for images at toy sizes: claims, a figure, bad settings."""

import re
from typing import Any

import numpy as np
import pytest

from configs.minimal_transformer import PRESETS, get_config
from experiments.minimal_transformer import run_experiment
from jattn.training import Run, UsageError


def toy(**changes) -> Any:
    config: Any = get_config()
    config.update({"seeds": 2, "parallel": {"mesh": {"data": 1}}, **changes})
    return config


@pytest.mark.slow
def test_images(tmp_path):
    sizes = dict(datasets=("digits",), variants=("full", "symmetric"), dim=8, heads=2)
    sizes |= dict(epochs=1, batch_size=720)
    config = toy(**sizes)
    with Run.open(tmp_path, config, name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert set(claims) == {
        f"minimal-{what}-digits" for what in ("accuracy", "parameters", "training")
    }
    # Without MLPs (2 * 8 * 32 + 40 a layer), with one matrix for queries and keys.
    whole, least = (
        int(number.replace(",", ""))
        for number in reversed(re.findall(r"[0-9,]+", claims["minimal-parameters-digits"].note))
    )
    assert claims["minimal-parameters-digits"].measured == pytest.approx(least / whole)
    assert whole - least >= 2 * (2 * 8 * 32 + 40)
    # One epoch of one batch: little better than guessing one digit of ten.
    accuracy = claims["minimal-accuracy-digits"]
    assert 0.0 <= accuracy.measured <= 0.5
    assert 0.0 <= accuracy.predicted + 0.02 <= 0.5
    training = claims["minimal-training-digits"]
    assert training.measured == pytest.approx(np.log(10), abs=0.6)
    assert training.predicted == pytest.approx(np.log(10), abs=0.6)
    assert (tmp_path / "figures" / "images.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ("cats",)}, "datasets: images: expected one of"),
        ({"variants": ("whole",)}, "variants: expected any of full, no MLP, .* got 'whole'"),
    ],
)
def test_bad_settings_are_named(tmp_path, change, message):
    config = toy(dim=8, heads=2, epochs=1, batch_size=720, **{"datasets": ("digits",), **change})
    with Run.open(tmp_path, config, name="toy") as run, pytest.raises(UsageError, match=message):
        run_experiment(config, run)


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.epochs > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
