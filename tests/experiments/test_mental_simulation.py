"""The experiment at toy sizes: its epochs, its scores, its roll-outs, its claims."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.mental_simulation import PRESETS, get_config
from experiments.mental_simulation import run_experiment
from experiments.mental_simulation.floors import features_of
from experiments.mental_simulation.models import DYNAMICS, dynamics_of, simulated
from experiments.mental_simulation.scoring import HIDDEN, epochs, rows_of, score, shown
from jattn.tasks.neural_population import known, last_seen, neural_population
from jattn.training import cli

TOY = [
    "seeds=1", "clips=12", "trials=4", "units=3", "side=8", "dim=8", "heads=2", "layers=1",
    "latent=3", "hidden=4", "encoder_steps=2", "steps=2", "batch_size=2",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="mental_simulation", argv=argv)
    return stopped.value.code


@pytest.fixture(scope="module")
def clips():
    config: Any = get_config()
    return config, shown(config, jax.random.key(0))


def test_epochs_lie_behind_the_occluder_and_before_the_paddle(clips):
    _, found = clips
    visible, x = np.asarray(found.visible), np.asarray(found.state[..., 0])
    frames = epochs(visible)["hidden"]
    assert frames.shape == (60, HIDDEN)
    row = np.arange(60)[:, None]
    assert not visible[row, frames].any()
    assert visible[np.arange(60), frames[:, 0] - 1].all()
    assert (x[row, frames] < 1).all()
    assert visible.sum(1).min() >= get_config().past
    values = jnp.arange(60 * 24.0).reshape(60, 24, 1)
    np.testing.assert_array_equal(rows_of(values, frames)[:HIDDEN, 0], frames[0])


def test_what_neurons_know(clips):
    _, found = clips
    visible = np.asarray(found.visible)
    whole, frozen, seen = (
        np.asarray(known(found.state, found.visible, kind))
        for kind in ("simulate", "freeze", "visual")
    )
    np.testing.assert_array_equal(frozen[visible], whole[visible])
    np.testing.assert_array_equal(seen[visible], whole[visible])
    assert (seen[~visible] == 0).all()
    assert (np.diff(frozen, axis=1)[~visible[:, 1:]] == 0).all()
    draw = lambda noise: neural_population(
        jax.random.key(1), found.state, found.visible, "simulate", units=5, trials=30, noise=noise
    )
    clean, noisy = draw(0.0), draw(1.5)
    np.testing.assert_array_equal(clean[0], clean[1])
    ratio = (noisy - clean).std((0, 1, 2)) / clean.std((0, 1, 2))
    np.testing.assert_allclose(ratio, 1.5, rtol=0.03)


def test_scores(clips):
    config, found = clips
    features = features_of(found)
    frames = epochs(np.asarray(found.visible))["hidden"]
    responses = neural_population(
        jax.random.key(1), found.state, found.visible, "simulate", units=20
    )
    scores = {
        name: score(config, jax.random.key(2), features[name], responses, frames)
        for name in ("true state", "freeze", "visible only")
    }
    assert scores["true state"] == pytest.approx(1, abs=0.05)
    assert scores["freeze"] < 0.9
    assert scores["visible only"] == 0


def test_rollouts_start_where_the_ball_is_hidden():
    line = jnp.stack([jnp.arange(10.0), -2.0 * jnp.arange(10.0)], 1)
    visible = jnp.arange(10) < 5
    hidden = jnp.where(visible[:, None], line, 99.0)  # must not be looked at
    straight = lambda window: 2 * window[-1] - window[-2]
    np.testing.assert_allclose(simulated(straight, hidden, visible, 3), line)
    still = simulated(lambda window: window[-1], hidden, visible, 3)
    np.testing.assert_array_equal(still, last_seen(hidden[None], visible[None])[0])


@pytest.mark.parametrize("name", DYNAMICS)
def test_dynamics_look_back_on_their_window(name):
    config: Any = get_config()
    config.update({"dim": 8, "heads": 2, "latent": 3, "hidden": 4, "past": 4})
    dynamics = dynamics_of(config, name)
    params = dynamics.init(jax.random.key(0))
    window = jax.random.normal(jax.random.key(1), (4, 3))
    gradient = jax.jacobian(lambda w: dynamics.step(params, w))(window)
    assert dynamics.step(params, window).shape == (3,)
    assert (np.abs(gradient).sum((0, 2)) > 0).all()


@pytest.mark.slow
def test_floors_state_their_claims(tmp_path):
    assert run_toy(tmp_path, "study=floors") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == ["ceiling", "ladder", "freeze", "visual", "time"]
    assert (tmp_path / "figures" / "floors.png").stat().st_size > 5_000


@pytest.mark.slow
def test_models_state_their_claims(tmp_path):
    assert run_toy(tmp_path, "study=latents") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == ["dynamics-needed", "encoder-alone", "encoder-trained", "from-clips"]
    assert (tmp_path / "figures" / "latents.png").stat().st_size > 5_000


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("clips=9", "clips: expected an even number of at least 8, got 9"),
        ("trials=3", "trials: expected an even number of at least 2, got 3"),
        ("alpha=0.0", "alpha: expected a positive number, got 0.0"),
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
        ("past=9", "past: expected at most 8 frames, which are seen of each clip, got 9"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
