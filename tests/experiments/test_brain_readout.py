"""Readouts of made brains at toy sizes: what is drawn and fitted, and claims of made numbers."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.brain_readout import get_config
from experiments.brain_readout import routing, run_experiment, voxels
from jattn.tasks.made_cortex import made_cortex, seen_image
from jattn.tasks.made_voxels import posterior_mean, shared_subspace, voxel
from jattn.theory.predictivity import ridge
from jattn.training import cli

TOY = [
    "seeds=1", "routing.rows=2", "routing.columns=4", "routing.dim=8", "routing.voxels=2",
    "routing.images=40", "routing.test=30", "routing.steps=2", "routing.batch_size=4",
    "voxels.dim=4", "voxels.rank=2", "voxels.width=8", "voxels.heads=2", "voxels.depth=1",
    "voxels.least=2", "voxels.most=4", "voxels.lengths=(2, 4, 6)", "voxels.compared=(2, 4, 6)",
    "voxels.steps=2", "voxels.batch_size=4", "voxels.test=8",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="brain_readout", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_all_studies(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert {"content-over-map", "looks", "uniform", "few", "ln-t", "bound"} <= set(claims)
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    assert claims["bound"]["holds"]  # whatever was trained
    for name in ("routing", "looks", "voxels"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_areas_read_their_tokens_and_no_two_marked_ones_coincide():
    cortex = made_cortex(jax.random.key(0), dim=8, voxels=3)
    draw = jax.jit(jax.vmap(lambda key: seen_image(key, cortex, rows=2, columns=4, place=(1, 1),
                                                   noise=0.0)))  # fmt: skip
    seen = draw(jax.random.split(jax.random.key(1), 300))
    free = seen.tokens @ cortex.rotation
    assert (seen.sources[:, 0] == 5).all()
    faces, hands = free[..., 0].argmax(1), free[..., 1] > 1.5
    assert (np.asarray(faces) == np.asarray(seen.sources[:, 1])).mean() > 0.95
    assert (seen.sources[:, 2] % 4 < 2).all()  # the left half
    assert (seen.sources[:, 1] != seen.sources[:, 2]).all()
    assert (hands[:, [0, 1, 4, 5]].sum(1) == 1).mean() > 0.9
    read = jnp.einsum("baf,afv->bav", free[jnp.arange(300)[:, None], seen.sources], cortex.weights)
    np.testing.assert_allclose(read, seen.responses, atol=1e-5)


def test_an_unmoved_map_reads_the_mean_and_a_query_of_no_keys_as_well():
    tokens = jax.random.normal(jax.random.key(0), (3, 8, 8))
    plain = routing.Readout(routing.MAP, (2, 4), 8, 2, nnx.Rngs(0))
    mean = jnp.einsum("bc,acv->bav", tokens.mean(1), plain.weight[...])
    np.testing.assert_allclose(plain(tokens), mean, atol=1e-5)
    asking = routing.Readout(routing.ATTENTION, (2, 4), 8, 2, nnx.Rngs(0))
    assert not np.allclose(asking.looks(tokens), 1 / 8, atol=1e-3)
    asking.pool.params["key"]["weight"][...] *= 0
    np.testing.assert_allclose(asking.looks(tokens), 1 / 8, atol=1e-6)


def test_padding_and_order_of_examples_change_nothing():
    config: Any = get_config().voxels
    config.update(dim=3, width=8, heads=2, depth=1)
    net = voxels.Hypernetwork(config, True, nnx.Rngs(0))
    basis = shared_subspace(jax.random.key(0), dim=3, rank=2)
    _, e, y = jax.vmap(lambda k: voxel(k, basis, images=5))(jax.random.split(jax.random.key(1)))
    found = net(e, y, jnp.array([3, 5]))
    moved = net(e.at[0, 3:].set(9.0), y.at[0, 3:].set(-9.0), jnp.array([3, 5]))
    np.testing.assert_allclose(found, moved, atol=1e-5)
    turned = net(e[:, ::-1], y[:, ::-1], jnp.array([5, 5]))
    np.testing.assert_allclose(turned[1], found[1], atol=1e-4)
    assert not np.allclose(turned[0], found[0], atol=1e-3)


def test_the_posterior_mean_is_ridge_regression_where_the_prior_is_round():
    _, e, y = voxel(jax.random.key(0), shared_subspace(jax.random.key(1), dim=4, rank=2), images=9)
    e, y = e - e.mean(0), y - y.mean()
    found = posterior_mean(e, y, jnp.eye(4) / 5, 0.3)
    np.testing.assert_allclose(found, ridge(e, y[:, None], 0.3**2 * 5)[0][:, 0], atol=1e-4)


def test_verdicts_of_made_numbers():
    rows = {routing.ATTENTION: [0.9, 0.9, 0.9], routing.MAP: [0.9, 0.02, 0.7],
            routing.RIDGE: [0.9, 0.0, 0.0]}  # fmt: skip
    asked = {name: np.array([row]) for name, row in rows.items()}
    claims = {
        c.id: c.holds for c in routing._claims(asked, {routing.ATTENTION: np.ones((1, 3))}, 49)
    }
    assert [id for id, holds in claims.items() if not holds] == ["both-over-map"]
    settings: Any = get_config().voxels
    best = np.array([[0.5, 0.9, 0.95, 0.96, 0.97, 0.98]])
    made = {voxels.BEST: best, voxels.RIDGE: best - 0.3, voxels.SCALED: best - 0.1,
            voxels.PLAIN: best - [0, 0, 0, 0, 0, 0.2]}  # fmt: skip
    found = {c.id: c.holds for c in voxels._claims(made, settings)}
    assert all(found.values())
    made[voxels.SCALED] = best + 0.05
    assert not {c.id: c.holds for c in voxels._claims(made, settings)}["bound"]


def test_bad_settings(tmp_path, capsys):
    for study, setting, message in (
        ("routing", "routing.dim=10", "routing.grid: needs a dim that is a multiple of 4, got 10"),
        ("routing", "routing.columns=3", "routing.columns: expected"),
        ("voxels", "voxels.rank=5", "voxels.rank: expected at most dim=4, got 5"),
        ("reading", "seeds=1", "study: expected any of routing, voxels or all"),
    ):
        assert run_toy(tmp_path, f"study={study}", setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
