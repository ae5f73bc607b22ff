"""The experiment at toy sizes: its captioners, its worse captions, its claims."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.self_injection import PRESETS, get_config
from experiments.self_injection import run_experiment
from experiments.self_injection.captioners import (
    LINEAR,
    Captions,
    draw_scenes,
    linear_captioner,
    llama_captioner,
)
from experiments.self_injection.rounds import Arm, Settings, inject
from jattn.nn.llama import llama_init
from jattn.systems.injection import chair
from jattn.tasks import captioned_scenes as scenes
from jattn.training import cli

TOY = [
    "linear_seeds=1", "rounds=1", "curriculum=(0.3,)", "test=20", "linear_steps=2",
    "linear_dpo.pairs=20", "linear_dpo.steps=2", "linear_dpo.batch_size=8", "steps=2",
    "batch_size=2", "dim=8", "heads=2", "layers=1", "hidden=8", "llama_dpo.pairs=12",
    "llama_dpo.steps=2", "llama_dpo.batch_size=2",
]  # fmt: skip
SETTINGS = Settings(64, 2, 8, 0.1, 0.1, 10, 8)


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="self_injection", argv=argv)
    return stopped.value.code


@pytest.fixture(scope="module")
def linear():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "visual": jax.random.normal(keys[0], (LINEAR,)),
        "bias": jax.random.normal(keys[1], (scenes.OBJECTS,)),
        "previous": jax.random.normal(keys[2], (scenes.OBJECTS + 1, scenes.OBJECTS)),
    }
    scene = draw_scenes(keys[3], 64)
    captioner = linear_captioner()
    return captioner, params, scene, captioner.write(params, keys[0], scene)


def test_scores_of_the_log_linear_captioner_sum_to_one(linear):
    captioner, params, scene, own = linear
    # All objects that can be the last sentence of one caption.
    objects = np.repeat(np.asarray(own.objects[:1]), scenes.OBJECTS, 0)
    objects[:, -1] = np.arange(scenes.OBJECTS)
    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], scenes.OBJECTS, axis=0), scene)
    score = lambda objects: captioner.score(params, rows, Captions(objects, objects))
    new = ~np.isin(objects[:, -1], objects[0, :-1])
    shorter = jnp.asarray(objects).at[:, -1].set(-1)
    share = np.exp(np.asarray(score(jnp.asarray(objects)) - score(shorter)))
    assert share[new].sum() == pytest.approx(1, abs=1e-5)
    assert (share[~new] == 0).all()


@pytest.mark.parametrize("arm", [Arm((0.3,)), Arm((0.3,), late=False, likely=False)])
def test_worse_captions_differ_where_they_should(linear, arm):
    captioner, params, _, own = linear
    worse = inject(captioner, params, own, arm, 0.3, SETTINGS, seed=1)
    before, after = np.asarray(own.objects), np.asarray(worse.captions.objects)
    np.testing.assert_array_equal(before != after, worse.replaced)
    assert worse.usable.all()
    assert (worse.replaced.sum(1) == 2).all()  # 2 of 6
    assert not worse.replaced[:, 0].any()
    for old, new, replaced in zip(before, after, worse.replaced, strict=True):
        assert not np.isin(new[replaced], old).any()
        assert len(set(new)) == LINEAR
    assert not inject(captioner, params, own, arm, 0.01, SETTINGS, seed=1).usable.any()


def test_captions_that_were_true_get_as_many_errors_as_were_injected(linear):
    captioner, params, *_ = linear
    scene = draw_scenes(jax.random.key(5), 64)
    enough = np.asarray(scene.present.sum(1)) >= LINEAR
    scene = jax.tree.map(lambda leaf: leaf[enough], scene)
    true = jnp.argsort(~scene.present, axis=1, stable=True)[:, :LINEAR]
    worse = inject(captioner, params, Captions(true, 0 * true), Arm((0.3,)), 0.3, SETTINGS, seed=2)
    mentions = (worse.captions.objects[..., None] == jnp.arange(scenes.OBJECTS)).sum(1)
    assert 0 < float(chair(scene.present, mentions).instances) <= 2 / LINEAR


def test_the_llama_finishes_sentences_without_the_image():
    config: Any = SimpleNamespace(dim=8, heads=2, layers=1, hidden=8)
    from experiments.word_models import word_model

    params = llama_init(jax.random.key(0), word_model(config, scenes.VOCABULARY))
    captioner = llama_captioner(config)
    scene = draw_scenes(jax.random.key(1), 8)
    own = captioner.write(params, jax.random.key(2), scene)
    told = np.asarray(own.objects) >= 0
    np.testing.assert_array_equal(told, np.asarray(own.places) >= 0)
    assert (np.asarray(own.objects) < scenes.OBJECTS).all()
    # Scores are those of what was written, and depend on the image; places do not.
    other = jax.tree.map(lambda leaf: leaf[::-1], scene)
    scores = [captioner.score(params, of, own) for of in (scene, other)]
    assert (np.asarray(scores) < 0).all()
    assert np.abs(np.asarray(scores[0] - scores[1])).max() > 1e-4
    where = jnp.zeros(8, int)
    first = captioner.finish(params, own, where).places[:, 0]
    same = captioner.finish(params, Captions(own.objects, own.places.at[:, 1:].set(0)), where)
    np.testing.assert_array_equal(first, same.places[:, 0])  # nor on what comes later


@pytest.mark.slow
def test_studies_state_their_claims(tmp_path):
    assert run_toy(tmp_path) in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    kinds = ("chair", "recall", "late", "likely", "curriculum")
    assert list(claims) == [f"{study}-{kind}" for study in ("linear", "llama") for kind in kinds]
    for name in ("linear", "llama"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("rate=0.1", "rate: expected rates in (0.125, 1), of a sentence of six to eight, got 0.1"),
        ("rounds=2", "curriculum: expected rounds=2 rates, got 1"),
        ("llama_dpo.pairs=4", "pairs: expected at least 8, got 4"),
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
