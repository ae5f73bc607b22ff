"""Guidance by maps at toy sizes: what costs nothing changes nothing, and claims are stated."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.map_guidance import PRESETS, get_config
from experiments.map_guidance import run_experiment
from experiments.map_guidance.generator import (
    captions,
    images,
    maps_of,
    model_of,
    no_guidance,
    overlap,
    sizes_of,
)
from jattn.tasks import scenes
from jattn.training import cli

TOY = {
    "steps": 3, "batch_size": 4, "sampling_steps": 3, "test": 3, "chosen_on": 3, "sets": 2,
    "rounds": 1, "heads_a_round": 1, "dim": 8, "heads": 2, "layers": 1, "patch": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def generator():
    config = get_config()
    config.update(TOY)
    params = model_of(sizes_of(config)).init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(params))
    params = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(params, keys, strict=True)]
    return config, params, captions(jax.random.key(2), 3, scenes.OBJECTS)


def test_maps_are_of_both_words_of_an_object():
    probs = np.zeros((2, 1, 3, 4, scenes.CAPTION), np.float32)
    probs[..., 3] = np.arange(4)  # colour of the second object
    probs[..., 4] = 1
    maps = np.asarray(maps_of(jnp.asarray(probs)))
    assert maps.shape == (1, 3, 4)
    np.testing.assert_array_equal(maps[0, 1], 1 + np.arange(4))
    assert not maps[0, [0, 2]].any()


def test_overlap_is_half_of_equal_maps_and_none_of_apart_ones():
    assert float(overlap(jnp.ones((1, 3, 4)))[0]) == pytest.approx(0.5)
    assert float(overlap(jnp.eye(3)[None])[0]) == 0


@pytest.mark.slow
def test_guidance_of_no_weight_changes_nothing(generator):
    config, params, asked = generator
    plain = no_guidance(config)
    expected, _ = images(config, params, asked, plain)
    for options in (dict(moves=True), dict(perturbs=True)):
        found, _ = images(config, params, asked, plain, **options)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    moved, _ = images(config, params, asked, plain._replace(separate=jnp.float32(0.2)), moves=True)
    heads = plain._replace(perturbed=jnp.float32(2.0), heads=jnp.ones((1, 2)))
    led, _ = images(config, params, asked, heads, perturbs=True)
    for found in (moved, led):
        assert np.abs(np.asarray(found - expected)).max() > 1e-3


def test_captions_name_as_many_objects_as_are_asked_for():
    for count in (1, 2, 3):
        asked = captions(jax.random.key(count), 20, count)
        assert ((asked.objects >= 0).all(-1).sum(1) == count).all()
        assert abs(float(asked.noise.std()) - 1) < 0.02


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    settings = [f"{name}={value}" for name, value in TOY.items()]
    argv += [f"--config.{setting}" for setting in (*settings, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="map_guidance", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_the_experiment_states_its_claims(tmp_path):
    assert run_toy(tmp_path) == 3  # a generator of three steps draws nothing
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert list(claims) == [
        "generator", "generator-fails", "segregation", "segregation-overlap", "retention", "cosine",
        "perturbed-layer", "perturbed-heads",
    ]  # fmt: skip
    assert not claims["generator"]["holds"]
    assert claims["generator-fails"]["holds"]
    for name in ("arms", "images", "heads"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("steps=0", "steps: expected at least 1, got 0"),
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
        ("rounds=3", "rounds: expected at most 2 heads in all, got 3 times 1"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        assert get_config(preset).dim % get_config(preset).heads == 0
