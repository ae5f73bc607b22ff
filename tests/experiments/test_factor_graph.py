"""The experiment end to end at a toy size, and what thoughts are made of."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.factor_graph import get_config
from experiments.factor_graph import run_experiment
from experiments.factor_graph.thoughts import causes_of, init, sampler, think
from jattn.tasks.factor_graph import factor_graph, pairs_of
from jattn.training import cli

TOY = [
    "--config.parallel.mesh.data=1",
    "--config.causes=2",
    "--config.steps=150",
    "--config.seeds=2",
    "--config.batch_size=32",
]


@pytest.mark.slow
def test_pairs_are_found_with_the_verifier_and_not_without(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="factor_graph", argv=["prog", f"--workdir={tmp_path}", *TOY])
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == ["verified", "control", "both"]
    assert claims["verified"]["measured"] > 0.9
    assert claims["control"]["measured"] < 0.7
    assert stopped.value.code == (0 if all(c["holds"] for c in claims.values()) else 3)
    for name in ("graph", "precision"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_the_right_thought_holds_at_the_next_moment():
    config = get_config()
    partner = pairs_of(causes_of(config))
    params = init(config, jax.random.key(0))
    params["second"] = 50.0 * jax.nn.one_hot(jnp.asarray(partner), 16)
    batch = jax.vmap(sampler(config, "verified"))(jax.random.split(jax.random.key(1), 32))
    keys, values, picked = jax.vmap(lambda e: think(config, "verified", params, e, 1.0))(batch)
    np.testing.assert_array_equal(partner[picked[:, 0]], picked[:, 1])
    np.testing.assert_array_equal(partner[partner], np.arange(16))
    # Of the two, one is an effect, and is now expected to be what it will be.
    places = np.asarray(keys.argmax(-1))
    expected = np.asarray(values.argmax(-1))
    holds = np.take_along_axis(np.asarray(batch.next), places, 1) == expected
    assert holds[places >= 8].all()
    assert not holds[places < 8].all()


def test_bad_graphs_and_settings(tmp_path, capsys):
    with pytest.raises(ValueError, match="causes: expected a permutation"):
        factor_graph(np.array([0, 0]))
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            run_experiment,
            name="factor_graph",
            argv=["prog", f"--workdir={tmp_path}", "--config.causes=0"],
        )
    assert stopped.value.code == 2
    assert "causes" in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
