"""The pulse in made videos at toy sizes: what is drawn and read, and claims of made numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.physiological_video import get_config
from experiments.physiological_video import run_experiment, study
from experiments.physiological_video.network import PulseNetwork
from jattn.tasks.pulse_video import pulse_video
from jattn.training import cli

TOY = ["seeds=1", "frames=16", "side=4", "channels=3", "steps=2", "batch_size=2", "test=3"]


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="physiological_video", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_the_study(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert set(claims) == {"reads", "mask-helps", "shift-helps", "differences-helps", "finds-skin"}
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    for name in ("pulse", "masks"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 3_000


def test_skin_reddens_with_the_pulse_and_nothing_else_does():
    draw = lambda **sizes: pulse_video(jax.random.key(3), frames=40, noise=0.0, light=0.0, **sizes)
    beating, still = draw(amplitude=0.1), draw(amplitude=0.0)
    change = np.asarray(beating.frames - still.frames)
    green = change[..., 1] / (0.5 * 0.1)
    expected = np.asarray(beating.skin) * np.asarray(beating.pulse)[:, None, None]
    np.testing.assert_allclose(green, expected, atol=1e-3)
    assert np.ptp(np.asarray(beating.skin).reshape(40, -1).argmax(1)) > 0  # it moves


def test_a_heart_rate_is_read_off_a_wave():
    seconds = jnp.arange(96) / 20
    rates = jnp.array([0.9, 1.2, 2.2])
    waves = jnp.cos(2 * jnp.pi * rates[:, None] * seconds + 0.4) + 3
    np.testing.assert_allclose(study.heart_rate(waves, 20.0), rates, atol=0.03)
    slow = waves + 30 * jnp.sin(2 * jnp.pi * 0.25 * seconds)  # light, outside of the band
    np.testing.assert_allclose(study.heart_rate(slow, 20.0)[1:], rates[1:], atol=0.1)


def test_parts_of_the_network():
    video = pulse_video(jax.random.key(0), frames=6, side=4).frames[None]
    whole = PulseNetwork(3, mask=True, shift=True, differences=True, rngs=nnx.Rngs(0))
    looks = whole.looks(video)
    np.testing.assert_allclose(looks.sum((2, 3)), 1, rtol=1e-5)
    assert looks.std() > 0
    plain = PulseNetwork(3, mask=False, shift=False, differences=False, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(plain.looks(video), 1 / 16, rtol=1e-6)
    # Without shifts and differences a frame knows of no other but by their mean, kept here.
    swapped = video[:, jnp.array([1, 0, 2, 3, 4, 5])]
    np.testing.assert_allclose(plain(swapped)[0, :2], plain(video)[0, 1::-1], atol=1e-5)
    assert not np.allclose(whole(swapped)[0, :2], whole(video)[0, 1::-1], atol=1e-5)


def test_verdicts_of_made_numbers():
    one = np.ones(2)
    found = {study.WHOLE: 5 * one, study.UNMASKED: 6 * one, study.UNSHIFTED: 4 * one,
             study.UNCHANGED: 9 * one, f"skin, {study.WHOLE}": 1.5 * one}  # fmt: skip
    claims = {c.id: c.holds for c in study._claims(found)}
    assert [id for id, holds in claims.items() if not holds] == ["shift-helps", "finds-skin"]


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("side=3", "side: expected"),
        ("study=video", "study: expected any of pulse or all"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
