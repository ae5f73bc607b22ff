"""Few keys and few values at toy sizes: what the caches keep, where tokens are copied, claims."""

from typing import Any

import numpy as np
import pytest

from configs.key_value_heads import PRESETS, get_config
from experiments.key_value_heads import run_experiment
from experiments.key_value_heads.decoders import trained, variants
from jattn.training import Run

SIZES = dict(vocabulary=8, length=8, dim=8, layers=1, steps=2, seeds=1, batch_size=4, test_size=8)


def test_what_a_cache_keeps(tmp_path):
    config: Any = get_config()
    config.update(SIZES | {"parallel": {"mesh": {"data": 1}}})
    assert variants(config) == {"all": (4, 4), "few keys": (1, 4), "few values": (4, 1)}
    with Run.open(tmp_path, config, name="toy") as run:
        row = trained(run, config, "few keys")
    assert row["cache"] == (1 + 4) * 2  # heads of two channels
    # Two steps leave the loss at that of guessing among eight.
    np.testing.assert_allclose([row["loss"], row["copied"]], np.log(8), atol=0.3)
    assert row["loss"] != row["copied"]


def test_claims(tmp_path, monkeypatch):
    losses = {"all": (2.40, 0.02), "few keys": (2.405, 0.05), "few values": (2.41, 0.03)}

    def found(run, config, name):
        loss, copied = (np.full(2, value) for value in losses[name])
        return {"loss": loss, "copied": copied, "cache": np.array(40)}

    monkeypatch.setattr("experiments.key_value_heads.trained", found)
    with Run.open(tmp_path, get_config(), name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(get_config(), run)}
    assert [id for id, claim in claims.items() if not claim.holds] == ["few-keys-copied"]
    assert claims["few-keys"].predicted == pytest.approx(2.41)
    assert claims["few-keys-all"].predicted == pytest.approx(2.40)
    assert (tmp_path / "figures" / "loss_by_cache.png").stat().st_size > 5_000


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
        assert config.heads % config.few == 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
