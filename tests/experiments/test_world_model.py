"""The experiment end to end at a toy size, its floors, its models' sizes, and harm to beliefs."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.world_model import get_config
from experiments.world_model import run_experiment
from experiments.world_model.models import FLUID, MODELS, rolled_out, watched, world_models
from experiments.world_model.recovery import FIELD, LINEAR, diffused, distances, spoilt
from experiments.world_model.rollouts import AHEAD, COPY, MEAN, SEEN, claims_of, floors, test_clips
from jattn.training import cli

test_clips.__test__ = False  # a function of the experiment
TOY = [
    "steps=2", "seeds=2", "batch_size=2", "test_size=4", "worlds=digits", "channels=6", "side=10",
    "lstm_channels=4", "dim=8", "blocks=1", "window=1", "encoder_steps=1", "belief_steps=1",
    "carried=1",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="world_model", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_claims_are_stated(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    ends = ("growth", "one", "copy", "mean", "recovery")
    assert list(claims) == ["fair", *(f"digits-{end}" for end in ends)]
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    assert not claims["digits-copy"]["holds"]  # two steps teach nothing
    for name in ("over_time", "clip_digits", "harm"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_models_of_every_preset_are_of_one_size(preset):
    sizes = [model.parameters for model in world_models(get_config(preset)).values()]
    np.testing.assert_allclose(sizes, sizes[0], rtol=0.05)


def test_what_is_expected_feeds_the_rollout():
    """With a model that moves everything a pixel to the right, so do ten frames."""
    config: Any = get_config()
    model = world_models(config)[FLUID]
    moving = model._replace(
        start=lambda b: jnp.zeros((b, 1, 1, 1)),
        step=lambda params, state, frame, before: (state + 1, jnp.roll(frame, 1, -1)),
    )
    frames = jax.random.uniform(jax.random.key(0), (2, 3, 16, 16))
    state, expected = watched(moving, None, frames)
    np.testing.assert_array_equal(state, 2)
    np.testing.assert_array_equal(expected, jnp.roll(frames[:, 1:], 1, -1))
    # Steps that are blind leave no trace; a state may be given.
    state, _ = watched(moving, None, frames, blind=jnp.array([0, 1]))
    np.testing.assert_array_equal(state.ravel(), [2, 1])
    state, _ = watched(moving, None, frames, jnp.array([5.0, 7.0]).reshape(2, 1, 1, 1))
    np.testing.assert_array_equal(state.ravel(), [7, 9])
    out = rolled_out(moving, None, frames, 4)
    for ahead in range(4):
        np.testing.assert_array_equal(out[:, ahead], jnp.roll(frames[:, -1], ahead + 1, -1))


def test_floors():
    config: Any = get_config()
    config.test_size = 64
    frames = test_clips(config, "shapes")
    assert frames.shape == (64, SEEN + AHEAD, 16, 16)
    found = floors(frames)
    assert found[COPY][0] < min(found[COPY][4], found[MEAN][0])
    np.testing.assert_allclose(found[MEAN].mean(), frames.var((0, 1)).mean(), rtol=0.1)


def test_verdicts_of_made_errors():
    """A model that is good far ahead and bad one frame ahead."""
    config: Any = get_config()
    rising = np.linspace(0.01, 0.1, AHEAD) * np.array([0.99, 1.0, 1.01])[:, None]
    flat = np.full((3, AHEAD), 0.02)
    at = {name: flat if name == FLUID else rising for name in MODELS}
    nothing = {COPY: np.linspace(0.03, 0.1, AHEAD), MEAN: np.full(AHEAD, 0.05)}
    found = {claim.id: claim for claim in claims_of(config, "digits", at, nothing)}
    assert list(found) == ["digits-growth", "digits-one", "digits-copy", "digits-mean"]
    verdicts = {id.removeprefix("digits-"): claim.verdict for id, claim in found.items()}
    assert verdicts == {"growth": "holds", "one": "fails", "copy": "holds", "mean": "holds"}
    worse = claims_of(
        config, "digits", at | {FLUID: 3 * rising * np.linspace(1, 2, AHEAD)}, nothing
    )
    assert [claim.verdict for claim in worse] == ["fails"] * 4


def test_half_of_the_cells_are_spoilt_and_diffusion_keeps_the_mean():
    config: Any = get_config()
    params = world_models(config)[FLUID].init(jax.random.key(0))
    belief = jax.random.normal(jax.random.key(1), (8, 8, 8, config.channels))
    wrong = spoilt(jax.random.key(2), belief)
    changed = np.asarray((wrong != belief).any(-1))
    assert changed.mean() == pytest.approx(0.5, abs=0.08)
    still = jnp.ones_like(belief)
    np.testing.assert_allclose(diffused(params, still, 3), 1, rtol=1e-5)
    found = jax.jit(lambda u, v: distances(config, params, u, v))(belief, wrong)
    np.testing.assert_allclose(found[FIELD][0], found[LINEAR][0])
    assert found[FIELD].shape == (11,)


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("patch=3", "patch: expected a divisor of side=10, got 3"),
        ("worlds=moon", "worlds: expected any of shapes, digits, got 'moon'"),
        ("side=8", "side: expected more than the images' 8, got 8"),
        ("heads=3", "heads"),
        ("window=0", "window"),
        ("carried=-1", "carried"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
