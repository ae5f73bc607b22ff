"""The experiment at toy sizes: theory, the task, claims, bad settings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.position_bias import PRESETS, get_config
from experiments.position_bias import networks, run_experiment
from experiments.position_bias.networks import MASKS, Spec
from jattn.tasks.novel_classes import make_classes, novel_classes, seen_classes
from jattn.training import Run, UsageError


def toy(**changes) -> Any:
    config: Any = get_config()
    config.update(
        {"classes": 16, "labels": 4, "dim": 8, "hidden": 8, "pairs": 4, "copies": 2, "seeds": 2,
         "steps": 2, "batch_size": 4, "test_size": 8, "parallel": {"mesh": {"data": 1}}, **changes}
    )  # fmt: skip
    return config


def test_theory_holds(tmp_path):
    config = get_config()
    config.study = "rollouts,residual"
    with Run.open(tmp_path, config, name="position_bias") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert [id for id, claim in claims.items() if not claim.holds] == []
    assert claims["B5-mode"].note == "peaks at [0, 4, 16, 36]"
    assert claims["B5-first-causal"].figure == "rollouts"
    assert {claim.kind for claim in claims.values()} == {"paper", "derived", "identity"}


def test_sequences_hold_what_they_say():
    known = make_classes(jax.random.key(0), classes=16, labels=4, dim=8)
    sample = seen_classes(known, pairs=4, copies=2, noise=0.0, asked=(0, -1))
    batch = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(1), 64))
    items = batch.x[:, 0:-1:2]
    same = (items[:, :, None] == items[:, None]).all(-1)
    np.testing.assert_array_equal(same.sum((1, 2)), 8)  # two classes, two copies of each
    ends = (batch.x[:, -1] == items[:, 0]).all(-1) | (batch.x[:, -1] == items[:, -1]).all(-1)
    assert ends.all()
    np.testing.assert_allclose(batch.x[:, 1:-1:2], known.labels[batch.labels])
    asked = (batch.x[:, -1, None] == items).all(-1)
    np.testing.assert_array_equal(
        jnp.where(asked, batch.labels, batch.answer[:, None]), batch.answer[:, None] * jnp.ones(4)
    )
    twice = jax.vmap(novel_classes(known, pairs=4, twice=(1, -1)))(
        jax.random.split(jax.random.key(2), 16)
    )
    assert (twice.x[:, 2] == twice.x[:, -1]).all()
    assert (twice.x[:, 6] == twice.x[:, -1]).all()
    assert (twice.labels[:, 1] == twice.answer).all()
    assert (twice.labels[:, 1] != twice.labels[:, 3]).all()
    with pytest.raises(ValueError, match="copies: expected a divisor of 4 pairs, got 3"):
        seen_classes(known, pairs=4, copies=3, noise=0.0)


@pytest.mark.parametrize("mask", MASKS)
def test_the_last_position_sees_what_the_mask_lets_it(mask):
    config = toy(window=2, prefix=2)
    spec = Spec(mask, 1)
    params = networks.init(jax.random.key(0), config, spec)
    x = jax.random.normal(jax.random.key(1), (1, 9, 8))
    seen = jax.jacobian(lambda x: networks.logits(params, config, spec, x))(x)
    reached = np.abs(np.asarray(seen)).sum((0, 1, 2, 4)) > 0
    assert reached.sum() == (2 if mask == "window" else 9)


@pytest.mark.slow
def test_every_claim_is_stated(tmp_path):
    full: Any = get_config("full")
    config = toy(masks=full.masks, ends=full.ends, depths=(1, 2))
    with Run.open(tmp_path, config, name="position_bias") as run:
        claims = run_experiment(config, run)
    ids = [claim.id for claim in claims]
    assert len(ids) == len(set(ids))
    assert {"B1", "B1-middle", "B2-first-last", "B3", "B4-4", "B6-decay", "B6-rotary"} <= set(ids)
    assert {"B1-window", "B1-prefix", "B1-rotary"} <= set(ids)
    for name in ("rollouts", "residual", "gaps", "ends"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


@pytest.mark.slow
def test_trained_networks_state_their_gaps(tmp_path):
    config = toy(masks=("causal",), layers=(1,), study="trained")
    with Run.open(tmp_path, config, name="position_bias") as run:
        claims = run_experiment(config, run)
    assert [claim.id for claim in claims] == ["B1", "B1-middle"]
    assert all(len(claim.seeds or ()) == 2 for claim in claims)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": ("causal", "nothing")}, "masks: expected any of causal, none"),
        ({"copies": 3}, "copies: expected a divisor of 4, got 3"),
        ({"length": 40}, "length: expected at most 25"),
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
