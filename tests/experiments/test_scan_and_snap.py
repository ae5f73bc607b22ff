"""The experiment at toy sizes: files, claims, strategies, bad settings."""

import json
from typing import Any

import numpy as np
import pytest

from configs.scan_and_snap import PRESETS, get_config
from experiments.scan_and_snap import figures, run_experiment
from experiments.scan_and_snap.common import trainer
from jattn.tasks.sequence_classes import sequence_classes
from jattn.training import Parallel, Run, UsageError, cli, sweep


def test_theory_holds(tmp_path):
    argv = ["prog", f"--workdir={tmp_path}", "--config.study=theory"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="scan_and_snap", argv=argv)
    assert stopped.value.code == 0
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {"S1", "S2", "S4", "S5"} <= {claim["id"] for claim in claims}
    assert (tmp_path / "figures" / "attention_growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_every_claim_is_stated(tmp_path):
    config = get_config()
    config.update({"seeds": 2, "medium_seeds": 2, "medium_num_last": (1, 3)})
    with Run.open(tmp_path, config, name="toy") as run:
        ids = {claim.id.split("-")[0] for claim in run_experiment(config, run)}
    assert {f"S{n}" for n in range(1, 18)} == ids


@pytest.mark.slow
def test_claims_and_maps_of_text(tmp_path, monkeypatch):
    config: Any = get_config()
    found, draw = {}, figures.text_maps
    monkeypatch.setattr(figures, "text_maps", lambda *args: found.update(args[1]) or draw(*args))
    config.study = "text"
    config.text_model.update(
        {"vocabulary": 60, "dim": 8, "layers": (1,), "length": 12, "batch_size": 2, "steps": 8,
         "logs": 4, "seeds": 2, "sgd_rates": (1.0, 3.0), "adam_rates": (0.001, 0.003)}
    )  # fmt: skip
    with Run.open(tmp_path, config, name="toy") as run:
        ids = {claim.id for claim in run_experiment(config, run)}
        assert {"text", "text_maps"} <= set(run.figures)
    assert ids == {"T1-sgd-1", "T2-sgd-1", "T3-sgd-1", "T1-adam-1", "T2-adam-1", "T3-adam-1", "T4"}
    maps = found["sgd", 1]["map"]
    assert maps.shape == (2, 2, 5, 12, 12)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    assert (np.triu(maps, 1) == 0).all()


def test_sweeps_agree_over_strategies(tmp_path):
    classes = sequence_classes(1, 2, num_common=2, num_distinct=3)
    function = trainer(classes, steps=5, batch_size=8, length=16, optimizer="sgd", init="uniform")
    rates = np.array([[1.0, 1.0], [5.0, 1.0]], np.float32)
    cells = [{"seed": np.int32(seed), "rates": rates} for seed in range(3)]
    found = {}
    for strategy in ("jit", "shard_map", "pmap"):
        with Run.open(
            tmp_path / strategy, {}, name="toy", parallel=Parallel(strategy=strategy)
        ) as run:
            found[strategy] = sweep(run, "toy", function, cells)
    assert found["jit"]["attention"].shape == (3, 2, 6, 2, 11)
    np.testing.assert_allclose(found["jit"]["attention"].sum(-1), 1, atol=1e-5)
    for strategy in ("shard_map", "pmap"):
        for name, values in found["jit"].items():
            np.testing.assert_allclose(found[strategy][name], values, atol=1e-5)


def test_bad_settings(tmp_path):
    config = get_config()
    config.study = "theory,nothing"
    with (
        Run.open(tmp_path, config, name="toy") as run,
        pytest.raises(UsageError, match="study: expected any of"),
    ):
        run_experiment(config, run)
    assert get_config("full").study == "all"
    assert all(get_config(preset).steps == 100 for preset in PRESETS)
