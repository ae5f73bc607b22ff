"""The experiments give the same numbers under jit, shard_map and pmap on eight devices."""

import importlib
import json

import numpy as np
import pytest

from jattn.training import cli

TOYS = {
    "in_context_regression": (
        "study=isotropic",
        "seeds=2",
        "batch_size=16",
        "length=10",
        "log_every=10",
        "test_size=1000",
        "steps.isotropic=30",
    ),
    "random_feature_attention": ("study=kernel", "kernel.counts=(10,100)", "kernel.seeds=3"),
    "scan_and_snap": ("study=descent", "seeds=2"),
    "pavlovian": ("study=capacity", "dims=(16,)", "small_trials=16", "trials=16"),
    "dynamical_systems": (
        "study=features,recall",
        "features.seeds=4",
        "features.scales=(0.1,3.0)",
        "dim=8",
        "steps=2",
        "batch_size=8",
        "expansions=(2,)",
        "task.test_size=16",
    ),
    "attention_methods": ("study=trees", "trees.steps=4", "trees.seeds=2", "trees.test_size=8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_claims_do_not_depend_on_the_strategy(tmp_path, name):
    run_experiment = importlib.import_module(f"experiments.{name}").run_experiment
    measured = {}
    for strategy in ("jit", "shard_map", "pmap"):
        folder = tmp_path / strategy
        argv = ["prog", f"--workdir={folder}", *(f"--config.{field}" for field in TOYS[name])]
        argv += [f"--config.parallel.strategy={strategy}", f"--config=configs/{name}.py:small"]
        with pytest.raises(SystemExit) as stopped:
            cli.main(run_experiment, name=name, argv=argv)
        assert stopped.value.code in (0, 3)  # Toys prove nothing.
        claims = json.loads((folder / "claims.json").read_text())
        measured[strategy] = {claim["id"]: float(claim["measured"]) for claim in claims}
    assert measured["jit"]
    for strategy in ("shard_map", "pmap"):
        assert measured[strategy].keys() == measured["jit"].keys()
        for claim, value in measured["jit"].items():
            np.testing.assert_allclose(
                measured[strategy][claim], value, rtol=1e-3, atol=1e-5, err_msg=claim
            )
