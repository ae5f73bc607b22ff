"""The experiment at toy sizes: files, claims, resuming, strategies, bad settings."""

import json

import numpy as np
import pytest

from configs.pavlovian import PRESETS, get_config
from experiments.conditioning.capacity import crossing, worst_noise
from experiments.pavlovian import run_experiment
from jattn.training import Parallel, Run, UsageError, cli, sweep


def test_protocols_hold_and_resume(tmp_path):
    argv = ["prog", f"--workdir={tmp_path}", "--config.part=identity,phenomena"]
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            cli.main(run_experiment, name="pavlovian", argv=argv)
        assert stopped.value.code == 0
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {"P1", "P15", "P16", "P17", "P18", "P19"} <= {claim["id"] for claim in claims}
    assert (tmp_path / "figures" / "protocols.png").stat().st_size > 10_000


@pytest.mark.slow
def test_every_claim_is_stated(tmp_path):
    config = get_config()
    config.update(
        {"dims": (16, 64), "small_trials": 16, "trials": 16, "retrievals": 512, "networks": 64,
         "chains": 1, "memories": 16, "softmax_pairs": (16,)}
    )  # fmt: skip
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    ids = [claim.id for claim in claims]
    assert len(set(ids)) == len(ids)
    assert {f"P{n}" for n in range(1, 21)} <= {name.split("-")[0] for name in ids}
    assert len(run.figures) == 10


def test_sweeps_agree_over_strategies(tmp_path):
    def function(cell):
        import jax

        return {"worst": worst_noise(jax.random.key(cell["seed"]), dim=8, most=12, chunk=2)}

    cells = [{"seed": np.int32(seed)} for seed in range(9)]
    found = {}
    for strategy in ("jit", "shard_map", "pmap"):
        with Run.open(
            tmp_path / strategy, {}, name="toy", parallel=Parallel(strategy=strategy)
        ) as run:
            found[strategy] = sweep(run, "toy", function, cells)["worst"]
    assert found["jit"].shape == (9, 6)
    for strategy in ("shard_map", "pmap"):
        np.testing.assert_allclose(found[strategy], found["jit"], rtol=1e-5)


def test_worst_noise_is_that_of_partial_memories():
    import jax
    import jax.numpy as jnp

    from jattn.tasks.conditioning import sphere

    key = jax.random.key(3)
    first, second = jax.random.split(key)
    keys, values = sphere(first, (12, 8)), sphere(second, (12, 8))
    for index, pairs in enumerate((3, 6, 9, 12)):
        scores = (keys[:pairs] @ keys[:pairs].T) * (1 - jnp.eye(pairs))
        expected = ((scores @ values[:pairs]) ** 2).sum(-1).max()
        found = worst_noise(key, dim=8, most=12, chunk=3)[index]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert crossing(np.array([1, 2, 4]), np.array([0.0, 0.05, 0.15]), 0.1) == pytest.approx(3)


def test_bad_settings(tmp_path):
    for field, value in (("part", "nothing"), ("alpha", 1.5), ("gamma", 0.0)):
        config = get_config()
        config[field] = value
        with (
            Run.open(tmp_path / field, config, name="toy") as run,
            pytest.raises(UsageError, match=f"{field}: expected"),
        ):
            run_experiment(config, run)
    assert all(get_config(preset).part == "all" for preset in PRESETS)
    assert 4096 in get_config("paper").to_dict()["dims"]
