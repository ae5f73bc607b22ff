"""Mixers of patches at toy sizes: one size for all, claims of made accuracies, bad settings."""

import json
from typing import Any

import numpy as np
import pytest

from configs.image_mixers import PRESETS, get_config
from experiments.functional import as_large
from experiments.image_mixers import run_experiment
from experiments.image_mixers.claims import claims_of
from experiments.image_mixers.models import model, names, parsed
from jattn.training import cli

TOY = [
    "seeds=2", "dim=8", "heads=2", "layers=1", "mlp_ratio=60.0", "epochs=1", "batch_size=720",
    "speed_grid=4",
]  # fmt: skip
TWO = "softmax_attention,agent_attention:agents=4"


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="image_mixers", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_digits(tmp_path):
    status = run_toy(tmp_path, f"mechanisms={TWO}")
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == ["fair", "agents", "agents-fast"]
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    assert claims["fair"]["holds"]
    assert not claims["agents"]["holds"]  # one epoch of one batch: twice a guess is not reached
    assert (tmp_path / "figures" / "mixers.png").stat().st_size > 5_000


def test_all_have_one_size():
    config: Any = get_config("full")
    sizes = [model(config, entry, (8, 8, 1)).parameters for entry in names(config)[::4]]
    np.testing.assert_allclose(sizes, sizes[0], rtol=0.01)


def test_grids_are_told_to_those_that_know_them():
    assert parsed("agent_attention:agents=4", (2, 3)) == (
        "agent_attention",
        {"agents": 4, "grid": (2, 3)},
    )
    assert parsed("flow_attention", (2, 3)) == ("flow_attention", {})


def test_width_of_a_size():
    class Line:
        def __init__(self, width):
            self.width, self.parameters = width, 7 + 5 * width

    assert as_large(Line, 7 + 5 * 12).width == 12
    assert as_large(Line, 7 + 5 * 12 + 2).width == 12
    with pytest.raises(ValueError, match="expected at most 3 parameters, has 12 at least"):
        as_large(Line, 3)


def test_verdicts_of_made_accuracies():
    config: Any = get_config()
    config.mechanisms += ",dydila"
    good, worse = np.array([0.97, 0.972, 0.974]), np.array([0.95, 0.951, 0.952])
    rows = {
        name: {"test_accuracy": good if "=4" in name else worse, "parameters": np.array(100)}
        for name in names(config)
    }
    speed = {"ms": np.arange(1.0, 9.0)}
    found = {claim.id: claim for claim in claims_of(config, rows, speed)}
    assert list(found) == [
        "fair", "agents", "agents-many", "dydila", "without-dydila", "flow", "agents-fast"
    ]  # fmt: skip
    holds = {id for id, claim in found.items() if claim.verdict == "holds"}
    assert holds == {"fair", "agents", "agents-many"}
    assert found["agents"].predicted == pytest.approx(0.951 + 0.005, abs=2e-3)
    guessing = {
        name: row | {"test_accuracy": row["test_accuracy"] / 9} for name, row in rows.items()
    }
    found = {claim.id: claim for claim in claims_of(config, guessing, speed)}
    assert found["agents"].verdict == "fails"  # of two that guess, neither is better


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("mechanisms=gated_mlp2", "mechanisms: gated_mlp2"),
        ("mechanisms=agent_attention:agents=3", "agents: expected at least 1, a square"),
        ("dataset=cats", "dataset: images: expected one of"),
        ("mechanisms=gated_delta_rule", "it has no bidirectional form"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    assert [get_config(preset).seeds for preset in PRESETS] == [3, 5, 5]
