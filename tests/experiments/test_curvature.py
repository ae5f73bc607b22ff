"""Graphs and their geometries: distances, weights that are exact by hand, claims."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.curvature import PRESETS, get_config
from experiments.curvature import claims_of, run_experiment
from experiments.curvature.graphs import GRAPHS, grid, ring, tree
from experiments.curvature.readers import MODELS, reader, trained
from jattn.training import Run


def test_distances():
    ends = [
        (tree(), 31, {(15, 16): 2, (0, 30): 4, (15, 30): 8}),
        (ring(), 32, {(0, 31): 1, (0, 16): 16, (3, 9): 6}),
        (grid(), 36, {(0, 7): 2, (0, 35): 10, (6, 5): 6}),
    ]
    for found, nodes, some in ends:
        assert found.shape == (nodes, nodes)
        np.testing.assert_array_equal(found, found.T)
        assert {pair: found[pair] for pair in some} == some
        assert found.max() == max(some.values())


def test_a_ring_is_round():
    """On a circle, at the right temperature, spherical weights fall off with distance exactly."""
    reading = reader(get_config(), "spherical")
    angle = 2 * np.pi * np.arange(32) / 32
    nodes = jnp.asarray(np.tile(np.stack([np.cos(angle), np.sin(angle)], -1), 3), jnp.float32)
    params = reading.init(jax.random.key(0))
    params |= {"query": jnp.eye(6), "key": jnp.eye(6)}
    params["log_temperature"] = jnp.log(jnp.array([2 * np.pi / 32]))  # c is 1 at first
    found = jax.jit(reading.apply)(params, nodes[None])[0]
    wanted = jax.nn.softmax(-jnp.asarray(ring(), jnp.float32))
    np.testing.assert_allclose(found, wanted, atol=0.01)  # arccos stops short of 1


def test_a_mixture_begins_with_equal_shares(tmp_path):
    config: Any = get_config()
    config.update(
        {
            "steps": 2,
            "seeds": 1,
            "batch_size": 4,
            "parallel": {"mesh": {"data": 1}},
            "learning_rate": 1e-9,
        }
    )
    with Run.open(tmp_path, config, name="toy") as run:
        row = trained(run, config, "ring", "mixture")
    np.testing.assert_allclose(row["shares"], 1 / 3, atol=1e-4)
    assert 0 < row["loss"][0] < np.log(32)


def test_claims():
    share = {"tree": (0.2, 0.5, 0.3), "ring": (0.2, 0.4, 0.4), "grid": (0.6, 0.2, 0.2)}
    loss = dict(zip(MODELS, (0.2, 0.1, 0.3, 0.11), strict=True))
    rows = {
        graph: {
            model: {"loss": np.full(2, loss[model]), "shares": np.tile(share[graph], (2, 1))}
            for model in MODELS
        }
        for graph in GRAPHS
    }
    rows["ring"]["mixture"]["loss"] += 0.1
    claims = {claim.id: claim for claim in claims_of(rows)}
    assert claims["hyperbolic-tree"].measured == pytest.approx(0.5)
    assert claims["spherical-ring"].predicted == pytest.approx(0.3)
    assert [id for id, claim in claims.items() if not claim.holds] == ["mixture-ring"]
    assert claims["mixture-grid"].predicted == pytest.approx(0.1)


@pytest.mark.slow
def test_it_runs(tmp_path):
    config: Any = get_config()
    config.update({"steps": 2, "seeds": 1, "batch_size": 4, "parallel": {"mesh": {"data": 1}}})
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    assert len(claims) == 5
    assert (tmp_path / "figures" / "geometries.png").stat().st_size > 5_000


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
