"""The experiment at toy sizes: files, claims, bad settings."""

import json

import numpy as np
import pytest

from configs.pavlovian import PRESETS, get_config
from experiments.pavlovian import run_experiment
from experiments.pavlovian.capacity import crossing, worst_noise
from jattn.training import Run, UsageError, cli


def test_protocols_hold(tmp_path):
    argv = ["prog", f"--workdir={tmp_path}", "--config.study=identity,phenomena"]
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


def test_worst_noise_is_that_of_partial_memories():
    import jax
    import jax.numpy as jnp

    from jattn.tasks.conditioning import sphere

    key = jax.random.key(3)
    first, second = jax.random.split(key)
    keys, values = sphere(first, (12, 8)), sphere(second, (12, 8))
    worst = worst_noise(key, dim=8, most=12, chunk=3)
    for index, pairs in enumerate((3, 6, 9, 12)):
        scores = (keys[:pairs] @ keys[:pairs].T) * (1 - jnp.eye(pairs))
        expected = ((scores @ values[:pairs]) ** 2).sum(-1).max()
        np.testing.assert_allclose(worst[index], expected, rtol=1e-5)
    assert crossing(np.array([1, 2, 4]), np.array([0.0, 0.05, 0.15]), 0.1) == pytest.approx(3)


def test_bad_settings(tmp_path):
    for field, value in (("study", "nothing"), ("alpha", 1.5), ("gamma", 0.0)):
        config = get_config()
        config.study = "identity"
        config[field] = value
        with (
            Run.open(tmp_path / field, config, name="toy") as run,
            pytest.raises(UsageError, match=f"{field}: expected"),
        ):
            run_experiment(config, run)
    assert all(get_config(preset).study == "all" for preset in PRESETS)
    assert 4096 in get_config("paper").to_dict()["dims"]
