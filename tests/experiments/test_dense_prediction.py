"""The U-Net's studies at toy sizes: what is drawn and judged, and claims of made numbers."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.dense_prediction import get_config
from experiments.dense_prediction import far, restoration, run_experiment, scribbles
from experiments.dense_prediction.discriminator import Discriminator, at_scales, spectral
from experiments.functional import as_functions
from jattn.nn import UNetOutput
from jattn.tasks.far_cues import far_cue
from jattn.tasks.scribbled_discs import scribbled_disc
from jattn.training import cli

TOY = [
    "seeds=1", "far.side=16", "far.widths=(4, 4)", "far.map_widths=(4, 4)", "far.block=8",
    "far.steps=2", "far.batch_size=2", "far.test=3", "scribbles.side=16",
    "scribbles.widths=(4, 4, 4)", "scribbles.smallest=2.0", "scribbles.largest=4.0",
    "scribbles.steps=2", "scribbles.batch_size=2", "scribbles.images=3", "scribbles.test=3",
    "restoration.widths=(4, 4)", "restoration.steps=2", "restoration.batch_size=2",
    "restoration.test=4",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="dense_prediction", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_all_studies(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert {"position-attention", "global-map", "judged-gates", "near-full", "together"} <= set(
        claims
    )
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    for name in ("far", "far_images", "scribbles", "restoration", "restored_images"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 3_000


def test_a_far_cue_decides_and_a_disc_is_where_its_mask_is():
    draw = jax.jit(jax.vmap(lambda key: far_cue(key, side=16, noise=0.0)))
    images, classes = draw(jax.random.split(jax.random.key(0), 60))
    cue = np.asarray(images[:, :, :4, 0]).sum((1, 2)) / 16
    np.testing.assert_allclose(np.abs(cue), 1, atol=1e-5)
    for sign, own in zip(cue, np.asarray(classes), strict=True):
        assert set(own.ravel()) == {0, 2 if sign > 0 else 1}
    disc = scribbled_disc(jax.random.key(0), noise=0.0, labelled=0.5)
    np.testing.assert_array_equal(disc.image[..., 0], disc.mask)
    assert 0.4 < disc.drawn.mean() < 0.6


def test_unions_count_each_class_alike():
    classes = jnp.array([[0, 0, 0, 1], [0, 0, 0, 2]])
    assert far.mean_union(classes, classes, 3) == 1
    found = far.mean_union(jnp.zeros_like(classes), classes, 3)
    np.testing.assert_allclose(found, (6 / 8) / 3, rtol=1e-6)


def test_masks_at_scales_and_a_judge_of_bounded_steps():
    mask = jnp.zeros((1, 8, 8, 1)).at[:, :4].set(1.0)
    assert [m.shape[1] for m in at_scales(mask, 3)] == [8, 4, 2]
    np.testing.assert_allclose([float(m.mean()) for m in at_scales(mask, 3)], 0.5, atol=1e-6)
    weight = jax.random.normal(jax.random.key(0), (4, 4, 3, 5))
    values = np.linalg.svd(np.asarray(spectral(weight)).reshape(-1, 5), compute_uv=False)
    assert values.max() == pytest.approx(1, rel=1e-4)
    judge = Discriminator(2, 8, rngs=nnx.Rngs(0))
    scales = at_scales(mask, 2)
    assert judge(scales).shape == (1,)
    assert not np.allclose(judge(scales), judge([scales[0], 1 - scales[1]]), atol=1e-5)


def test_the_judge_and_the_net_learn_from_their_own_parts():
    settings: Any = SimpleNamespace(instance_noise=0.2)
    judge = as_functions(lambda rngs: Discriminator(2, 8, rngs=rngs))
    params = judge.init(jax.random.key(0))
    masks = jnp.zeros((2, 8, 8), bool).at[:, 2:5, 2:5].set(True)
    keys = jax.random.split(jax.random.key(1), 2)

    def loss(params, logits, gate, adversarial):
        settings.adversarial = adversarial
        out = UNetOutput(logits, (gate, jnp.ones((2, 8, 8, 1))), None)
        return scribbles._judged(judge, params, out, masks, keys, settings)

    gate = jax.random.uniform(jax.random.key(2), (2, 4, 4, 1))
    logits = jax.random.normal(jax.random.key(3), (2, 8, 8, 2))
    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))
    of_judge, of_logits, of_gate = gradients(params, logits, gate, 0.1)
    assert all(np.abs(leaf).max() > 0 for leaf in of_judge)
    assert np.abs(of_logits).max() > 0
    assert np.abs(of_gate).max() > 0
    again = gradients(params, logits, gate, 0.0)  # the judge's own part gives the net nothing
    assert np.abs(again[1]).max() == 0
    assert np.abs(again[2]).max() == 0
    for one, other in zip(again[0], of_judge, strict=True):  # and its gradient is not the net's
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_pixels_that_nobody_labelled_do_not_count():
    disc = jax.tree.map(lambda x: x[None], scribbled_disc(jax.random.key(0), side=16, largest=5.0,
                                                          labelled=0.1))  # fmt: skip
    gradient = jax.grad(lambda logits: scribbles._labelled(logits, disc, disc.drawn))(
        jax.random.normal(jax.random.key(1), (1, 16, 16, 2))
    )
    moved = np.abs(np.asarray(gradient)).max(-1) > 0
    np.testing.assert_array_equal(moved, disc.drawn)


def test_verdicts_of_made_numbers():
    one = np.ones(2)
    found = dict.fromkeys(far.arms(get_config().far), 0.9 * one)
    found[far.NONE], found[far.MAP] = 0.6 * one, 0.65 * one
    assert [c.id for c in far._claims(found) if not c.holds] == ["global-map"]
    dices = {scribbles.PLAIN: 0.7 * one, scribbles.GATED: 0.8 * one, scribbles.JUDGED: 0.75 * one,
             scribbles.FULL: 0.9 * one}  # fmt: skip
    claims = {c.id: c.holds for c in scribbles._claims(dices)}
    assert claims == {"judged-gates": True, "judge": False, "near-full": False}
    ratios = dict.fromkeys(restoration.arms(get_config().restoration), 20 * one)
    ratios[restoration.AXES] = 19 * one
    verdicts = [c.id for c in restoration._claims(ratios, 18.0) if not c.holds]
    assert verdicts == ["multi-axis-restores"]


def test_bad_settings(tmp_path, capsys):
    for study, setting, message in (
        ("far", "far.widths=(4, 5)", "far.widths: expected multiples of 4, got 5"),
        ("scribbles", "scribbles.largest=9.0", "scribbles.smallest: expected 0 < smallest"),
        ("restoration", "restoration.dataset=cats", "restoration: images: expected one of"),
        ("dense", "seeds=1", "study: expected any of far, scribbles, restoration or all"),
    ):
        assert run_toy(tmp_path, f"study={study}", setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
