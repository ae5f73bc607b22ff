"""The experiment end to end at toy sizes: files, claims, strategies, bad settings."""

import json

import jax
import numpy as np
import pytest

from configs.random_feature_attention import PRESETS, get_config
from experiments.random_feature_attention import run_experiment
from experiments.random_feature_attention.common import Cell, Problem, errors
from jattn.training import Parallel, Run, UsageError, cli

TOY = [
    "--config.seeds=2",
    "--config.heads=20",
    "--config.sample_sizes=(16,32)",
    "--config.test_size=50",
    "--config.targets=('keys_1','keys_2','corr_only_2')",
    "--config.key_sweep.size=32",
    "--config.key_sweep.heads=20",
    "--config.key_sweep.counts=(2,4)",
    "--config.head_sweep.size=32",
    "--config.head_sweep.counts=(5,20)",
    "--config.interaction.size=32",
    "--config.interaction.heads=20",
    "--config.interaction.shares=(0.0,1.0)",
    "--config.bias_sweep.size=32",
    "--config.bias_sweep.heads=20",
    "--config.wide.size=32",
    "--config.wide.heads=20",
    "--config.kernel.counts=(100,1000)",
    "--config.kernel.seeds=4",
]


def run(workdir, study, *extra):
    argv = ["prog", f"--workdir={workdir}", f"--config.study={study}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="random_feature_attention", argv=argv)
    return stopped.value.code


def claims_of(workdir):
    return json.loads((workdir / "claims.json").read_text())


def test_core_studies_write_everything(tmp_path):
    # So few examples prove nothing, and the exit status says so.
    assert run(tmp_path, "samples") == 3
    claims = {claim["id"]: claim for claim in claims_of(tmp_path)}
    assert {"R1-keys_1", "R1-keys_2", "R9", "R10"} == set(claims)
    assert (tmp_path / "figures" / "error_by_size.png").stat().st_size > 5_000
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3 * 2 * 2 * 3  # models, seeds, sizes, targets
    assert json.loads(lines[0]).keys() >= {"error", "train_error", "ridge"}


@pytest.mark.slow
def test_all_studies_state_their_claims(tmp_path):
    assert run(tmp_path, "all") == 3
    ids = {claim["id"].split("-")[0] for claim in claims_of(tmp_path)}
    # Some are stated at a sample size or at sizes that the toy does not have.
    assert {f"R{n}" for n in (1, 2, 3, 6, 8, 9, 10, 11, 12)} | {"mix", "turned"} <= ids
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {
        "error_by_size",
        "error_by_keys",
        "error_by_heads",
        "error_by_share",
        "error_by_bias",
        "gram_errors",
    }


@pytest.fixture(scope="module")
def toy():
    config = get_config()
    config.update({"test_size": 40, "feature_chunk": 500})
    return config, Problem("rfa", 4, 3, (7, 16), (15, 30), ("keys_1", "corr_1"))


@pytest.mark.slow
def test_strategies_agree(tmp_path, toy):
    config, problem = toy
    cells = [Cell(seed, bias, 2) for bias in (0.0, 1.0) for seed in range(2)]
    results = {}
    for strategy in ("jit", "shard_map", "pmap"):
        parallel = Parallel(strategy, {"data": 2, "model": 1})
        with Run.open(tmp_path / strategy, {}, name="toy", parallel=parallel) as opened:
            results[strategy] = errors(opened, config, "toy", problem, cells)["error"]
    for strategy in ("shard_map", "pmap"):
        np.testing.assert_allclose(results[strategy], results["jit"], rtol=1e-3)


@pytest.mark.slow
def test_a_smaller_layer_and_sample_are_the_beginning_of_larger_ones(tmp_path, toy):
    config, problem = toy
    cell = [Cell(0, 0.0, 3)]
    with Run.open(tmp_path, {}, name="toy") as opened:
        nested = errors(opened, config, "nested", problem, cell)["error"]
        config.feature_chunk = 17  # neither do blocks matter
        alone = errors(opened, config, "alone", problem._replace(heads=(7,)), cell)["error"]
    np.testing.assert_allclose(alone[:, 0], nested[:, 0], rtol=1e-3)
    assert nested.shape == (1, 2, 2, 2)
    assert nested.dtype == np.float64
    assert jax.numpy.ones(1).dtype == np.float32  # double precision stays inside


def test_presets_share_their_fields():
    small = get_config().to_dict()
    for preset in PRESETS:
        assert get_config(preset).to_dict().keys() == small.keys()
    with pytest.raises(ValueError, match="preset: expected one of small, full, paper"):
        get_config("huge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "samples,nonsense"}, "study: expected any of"),
        ({"models": ("rfa", "mlp")}, "models: expected any of"),
        ({"activation": "tanh"}, "activation: expected one of relu, softmax"),
        ({"targets": ("keys_x",)}, "targets: expected keys_P"),
        ({"sample_sizes": (64, 32)}, "sample_sizes: expected rising positive numbers"),
        ({"ridge_grid": (0.0,)}, "ridge_grid: expected positive penalties"),
        ({"seeds": 0}, "seeds: expected at least 1"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, plain_checks, change, message):
    config = get_config()
    config.update({"study": "kernel", "kernel": {"counts": (10,)}, **change})
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)
