"""The experiment end to end at toy sizes: files, claims, bad settings."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from configs.test_time_regression import PRESETS, get_config
from experiments.test_time_regression import run_experiment
from experiments.test_time_regression.common import over, problem_of
from experiments.test_time_regression.segments import best, weights_of
from jattn.training import Run, UsageError, cli

TOY = [
    "--config.parallel.mesh.data=1",
    "--config.seeds=2",
    "--config.task.pairs=32",
    "--config.task.queries=8",
    "--config.task.dim=3",
    "--config.draws=4",
    "--config.scales=(1.0,4.0)",
    "--config.ridges=(0.01,)",
    "--config.kernels.pairs=(16,64)",
    "--config.kernels.bandwidths=(0.05,0.1,0.2)",
    "--config.plane.pairs=(16,64)",
    "--config.plane.bandwidths=(0.1,0.2)",
    "--config.stream.length=9",
    "--config.stream.segments=2",
    "--config.interpolation.scales=(0.01,0.02,1.0,4.0)",
    "--config.interpolation.ridges=(0.001,0.01,1.0,100.0,1000.0)",
]


def run(workdir, *extra):
    argv = ["prog", f"--workdir={workdir}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="test_time_regression", argv=argv)
    return stopped.value.code


def test_claims_are_stated_and_the_exact_ones_hold_at_any_size(tmp_path):
    assert run(tmp_path) in (0, 3)
    claims = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    families = {f"R{i}" for i in range(1, 6)} | {f"K{i}" for i in range(1, 6)}
    families |= {"T1", "T2", "T3"} | {f"S{i}" for i in range(1, 6)} | {f"I{i}" for i in range(1, 5)}
    assert {name.split("-")[0] for name in claims} == families
    exact = [name for name in claims if name[:2] in ("R1", "R2", "R3", "R4", "R5", "K1", "K2")]
    assert all(claims[name]["holds"] for name in [*exact, "I1", "I2"])
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {
        "bias_by_bandwidth", "error_by_pairs", "error_by_pairs_2", "bias_and_variance",
        "error_by_scale", "error_by_segments", "stream", "interpolation",
    }  # fmt: skip


def test_weights_of_local_layers_sum_to_one_and_knobs_are_axes():
    config: Any = get_config()
    config.task.update(dict(dim=3, pairs=16, queries=4))
    found = jax.jit(lambda: weights_of(problem_of(config, 0, 2), config))()
    shapes = {name: weights.shape[:-2] for name, weights in found.items()}
    assert shapes == {
        "local_linear": (6, 3), "softmax": (6,), "mesa": (3,), "delta": (), "linear": (4,)
    }  # fmt: skip
    for name in ("local_linear", "softmax"):
        np.testing.assert_allclose(found[name].sum(-1), 1, atol=1e-4)
    assert over(lambda a, b: a - b, (1.0, 2.0), (0.0, 1.0, 3.0)).tolist()[1] == [2.0, 1.0, -1.0]
    assert best(np.array([[2.0, 0.1, 9.0], [1.0, 0.5, 9.0]])) == (1,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "segments,nothing"}, "study: expected any of"),
        ({"segments": (2, 4)}, "segments: expected rising numbers with 1 and 2"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"scales": (0.0, 1.0)}, "scales: expected positive numbers"),
        ({"task": {"pairs": 0}}, "task.pairs: expected at least 1, got 0"),
        ({"stream": {"spreads": (1.0,)}}, "stream: expected two spreads"),
        ({"stream": {"length": 0}}, "stream.length: expected at least 1, got 0"),
        ({"kernels": {"pairs": (64,)}}, "kernels.pairs: expected two numbers above 1"),
        ({"interpolation": {"ridges": (1.0,)}}, "interpolation.ridges: expected two of 0.01"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, change, message):
    config = get_config()
    config.update({"study": "identities", **change})
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)


def test_presets_share_their_fields():
    small = get_config().to_dict()
    for preset in PRESETS:
        assert get_config(preset).to_dict().keys() == small.keys()
    with pytest.raises(ValueError, match="preset: expected one of small, full, paper"):
        get_config("huge")
