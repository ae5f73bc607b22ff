"""Residual networks on a stiff equation: blocks by hand, tickets, claims, bad settings."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rankdata

from configs.step_sizes import PRESETS, get_config
from experiments.step_sizes import claims, run_experiment
from experiments.step_sizes.networks import Network, apply, init, rank_correlation, stiffest
from jattn.training import cli

TOY = {"blocks": 4, "channels": 4, "hidden": 3, "reduction": 2}
FEW = {"steps": 2, "seeds": 2, "batch_size": 4, "examples": 8, "test_examples": 8, "time": 0.1}


@pytest.mark.parametrize("inputs", ["all", "change"])
def test_blocks_by_hand(inputs):
    config: Any = get_config()
    config.update(TOY)
    params = init(config, jax.random.key(0))
    starts = jax.random.normal(jax.random.key(1), (5, 2))
    attends = (True, False, True, True)
    found = jax.jit(lambda p, s: apply(Network(inputs, attends), p, s))(params, starts)
    p = jax.tree.map(np.asarray, params)
    x, before = np.asarray(starts) @ p["first"], None
    for n in range(4):
        own = jax.tree.map(lambda array, n=n: array[n], p["blocks"])
        change = np.tanh(x @ own["value"] + own["bias"]) @ own["output"]
        before = change if before is None else before  # the first block sees no difference
        seen = [change, x, change - before]
        if inputs == "change":
            seen = [change, 0 * x, 0 * x]
        hidden = np.maximum(np.concatenate(seen, -1) @ own["step"]["down"], 0)
        step = 1 / (1 + np.exp(-hidden @ own["step"]["up"])) if attends[n] else 1 + 0 * change
        for array, expected in ((found.states, x), (found.changes, change), (found.steps, step)):
            np.testing.assert_allclose(array[n], expected, atol=1e-5)
        x, before = x + step * change, change
    np.testing.assert_allclose(found.out, x @ p["last"], atol=1e-5)


def test_the_stiffest_blocks():
    stiffness = np.array([[1.0, 5.0, 2.0, 9.0], [1.0, 7.0, 3.0, 0.0]])
    assert stiffest(stiffness, 2) == (False, True, False, True, False)


def test_rank_correlation():
    first, second = jax.random.normal(jax.random.key(0), (2, 50))
    second = second + first
    expected = np.corrcoef(rankdata(first), rankdata(second))[0, 1]
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-5)
    assert rank_correlation(first, jnp.ones(50)) == 0


def test_claims_of_given_errors():
    errors = {
        "plain": (1.0, 3.0),
        "change only": (0.5, 2.0),
        "StepNet": (0.5, 1.0),
        "stiff blocks": (0.6, 1.2),
        "other blocks": (1.0, 1.0),
    }
    found = {name: {"loss": np.array(error)} for name, error in errors.items()}
    found["StepNet"] |= {"correlation": np.array([0.2, 0.6]), "of_blocks": np.zeros(2)}
    stated = {claim.id: claim for claim in claims(found, (False, True, True, False))}
    measured = {name: round(claim.measured, 6) for name, claim in stated.items()}
    assert measured == {
        "attention-helps": 0.375,
        "more-inputs": 0.6,
        "short-where-stiff": 0.4,
        "ticket": 1.2,
        "other-ticket": 0.9,
    }
    assert stated["ticket"].note == "blocks 2, 3"
    assert not stated["ticket"].holds
    assert stated["attention-helps"].holds


def run(folder, **settings):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{name}={value}" for name, value in (TOY | FEW | settings).items()]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="step_sizes", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_two_steps_teach_nothing(tmp_path):
    assert run(tmp_path) == 3
    found = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    assert len(found) == 5
    assert not found["attention-helps"]["holds"]
    assert all(np.isfinite(claim["measured"]) for claim in found.values())
    assert (tmp_path / "figures" / "step_sizes.png").stat().st_size > 10_000


def test_bad_settings(tmp_path, capsys):
    assert run(tmp_path, blocks=3) == 2
    assert "blocks: expected at least 4, got 3" in capsys.readouterr().err
    for preset in PRESETS:
        assert get_config(preset).blocks == 12
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
