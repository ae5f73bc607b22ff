"""Grokking at toy sizes: arms do not know of each other, interventions, claims, bad settings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.grokking_regimes import PRESETS, get_config
from experiments.arms import copies
from experiments.grokking_regimes import cohort, networks, run_experiment
from experiments.grokking_regimes.cohort import Arm, Cohort
from experiments.grokking_regimes.regimes import judged
from jattn.training import Run, UsageError


def toy(**changes) -> Any:
    config: Any = get_config()
    config.update(
        {"modulus": 5, "dim": 8, "steps": 4, "eval_every": 2, "change_at": 2, "seeds": 2,
         "batch_size": 4, "decays": (0.0, 0.2, 0.75, 1.5, 10.0), "parallel": {"mesh": {"data": 1}},
         **changes}
    )  # fmt: skip
    return config


def made(config) -> Cohort:
    """A cohort as the paper has it: t = 200 (lambda - 0.25)^-0.75, heads that align meanwhile."""
    usual, at = config.compare[0], config.change_at
    arms = [Arm(decay) for decay in config.decays]
    arms += [Arm(usual, o) for o in ("subtract", "multiply", "divide", "random")]
    arms += [Arm(usual, reset_at=at), Arm(usual, clip_at=at)]
    steps, seeds = np.arange(0, 2001, 25), 3
    decays = np.array([arm.decay for arm in arms])
    late = 200 * np.maximum(decays - 0.25, 1e-9) ** -0.75
    done = steps[:, None, None] >= late * np.array([1.0, 1.02, 0.98])[:, None]
    collapsed, random = decays == 10, np.array([arm.operation == "random" for arm in arms])
    known = (steps >= 100)[:, None, None] & ~collapsed & np.ones((seeds, 1), bool)
    test = np.where(done & ~collapsed & ~random, 1.0, 0.1)
    deviation = np.where(random, 0.05, 0.1) * np.exp(-(((steps - 125) / 300) ** 2))[:, None, None]
    changed = np.array([0.5 if arm.reset_at >= 0 else 1.0 for arm in arms])
    noted = {
        "train": np.where(known, 1.0, 0.1),
        "test": test,
        "similarity": np.where(collapsed, 1.0, np.where(test > 0.5, 0.98, 0.85)),
        "entropy_std": deviation * changed * ~collapsed * np.ones((seeds, 1)),
        "norm": 20 / (1 + decays) * np.ones((len(steps), seeds, 1)),
    }
    return Cohort(tuple(arms), steps, noted)


def test_claims_of_a_cohort_that_is_as_the_paper_says(tmp_path):
    config = get_config()
    config.steps = 2_000
    with Run.open(tmp_path, config, name="grokking_regimes") as run:
        claims = {claim.id: claim for claim in judged(run, config, made(config))}
        assert sorted(run.figures) == ["interventions", "laws", "trajectories"]
    assert [id for id, claim in claims.items() if not claim.holds] == []
    wanted = {"G1", "G2-train", "G2-test", "G3-similarity", "G3-entropy", "G3-train", "G4", "G5"}
    wanted |= {"G6-transition", "G6-clock", "G6-exponent", "G7-add", "G7-subtract", "G7-multiply"}
    assert set(claims) == wanted | {"G7-divide", "G8", "G10-reset", "G10-clip"}
    assert claims["G4"].measured == pytest.approx(0.13)


def test_claims_of_a_cohort_that_is_not(tmp_path):
    config = get_config()
    cohort = made(config)
    for field in ("test", "train", "similarity", "norm"):
        cohort.noted[field][:] = cohort.noted[field].mean()
    cohort.noted["entropy_std"][:] = 0.1
    with Run.open(tmp_path, config, name="grokking_regimes") as run:
        claims = {claim.id: claim for claim in judged(run, config, cohort)}
    assert [id for id, claim in claims.items() if claim.holds] == ["G2-test"]


def test_arms_and_interventions():
    """One step, by hand: each arm's parameters move as if it were alone."""
    config = toy()
    network = networks.network(config, "softmax_attention", config.heads)
    arms = [Arm(0.0), Arm(2.0), Arm(0.0, reset_at=0), Arm(0.0, clip_at=0)]
    start = jax.jit(network.init)(jax.random.key(0))
    params = {"nets": copies(start, len(arms)), "order": jnp.zeros(3)}
    gradient = jax.tree.map(jnp.ones_like, params)
    optimizer = cohort._optimizer(config, network, arms)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    moved: Any = optax.apply_updates(params, updates)
    moved = moved["nets"]
    rate = config.learning_rate
    words = start["words"]
    np.testing.assert_allclose(moved["words"][0], words - rate, atol=1e-6)
    np.testing.assert_allclose(moved["words"][1], words - rate * (1 + 2 * words), atol=1e-6)
    np.testing.assert_allclose(moved["words"][2], words - rate, atol=1e-6)
    query, width = moved["layers"][0]["mixer"]["query"], config.dim // config.heads
    np.testing.assert_allclose(query[2][:, width:], query[0][:, width:], atol=1e-6)
    assert (np.abs(query[2] - query[0])[:, :width] > 0).all()
    norms = jax.vmap(optax.tree.norm)(moved)
    np.testing.assert_allclose(norms[3], config.clip_share * optax.tree.norm(start), rtol=1e-5)


def test_maps_are_those_of_the_network():
    config = toy()
    network = networks.network(config, "softmax_attention", config.heads)
    params = jax.jit(network.init)(jax.random.key(0))
    tokens = jnp.array([[0, 1, 5], [3, 3, 5]])
    assert network.maps is not None
    maps = jax.jit(network.maps)(params, tokens)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
    assert maps.shape == (1, 2, 4, 3, 3)
    assert not np.triu(maps, 1).any()  # nothing looks ahead
    # The network, written out with its maps in the place of attention.
    before, layer = jax.jit(network.logits)(params, tokens), params["layers"][0]
    x = params["words"][tokens] + params["places"]
    normed = networks.rms_norm(x, layer["norms"][0])
    value = (normed @ layer["mixer"]["value"]).reshape(2, 3, 4, -1)
    read = jnp.einsum("bhts,bshd->bthd", maps[0], value).reshape(x.shape)
    x = (x + read @ layer["mixer"]["output"])[:, -1]
    x += jax.nn.gelu(networks.rms_norm(x, layer["norms"][1]) @ layer["up"]) @ layer["down"]
    again = networks.rms_norm(x, params["norm"]) @ params["head"]
    np.testing.assert_allclose(again, before, atol=1e-5)
    assert np.abs(before[0] - before[1]).max() > 0.01
    # Without values a layer adds nothing: the answer no longer depends on the other tokens.
    params["layers"][0]["mixer"]["value"] *= 0
    found = jax.jit(network.logits)(params, tokens)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    perceptron = networks.network(config, "mlp", 1)
    assert perceptron.maps is None
    assert perceptron.logits(perceptron.init(jax.random.key(0)), tokens).shape == (2, 6)


@pytest.mark.slow
def test_training_states_every_claim(tmp_path):
    config = toy(fractions=(0.7,), head_counts=(1, 2), peak_steps=2)
    with Run.open(tmp_path, config, name="grokking_regimes") as run:
        ids = [claim.id for claim in run_experiment(config, run)]
        assert set(run.figures) == {
            "capacity",
            "interventions",
            "networks",
            "trajectories",
            "plane",
        }
    assert {"G1", "G5", "G9", "G11", "G12-mlp", "G12-mlp-less", "G12-retention"} <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decays": (0.0, 1.0)}, "decays: expected 0, those of compare and collapse among them"),
        ({"compare": (1.5, 0.75)}, "compare: expected two decays, the less first"),
        ({"fractions": (0.5,)}, "fractions: expected shares but a half"),
        ({"heads": 3}, "heads: expected divisors of dim=8, got 3"),
        ({"reset_heads": 4}, "reset_heads: expected 1 to 3 of 4, got 4"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    config = toy(**change)
    with (
        Run.open(tmp_path, config, name="toy") as run,
        pytest.raises(UsageError, match=message),
    ):
        run_experiment(config, run)
    assert all(get_config(preset).study == "all" for preset in PRESETS)
