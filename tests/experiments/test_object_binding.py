"""Probes of pairs at toy sizes: what they compute, what is drawn, and claims of made numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.object_binding import get_config
from experiments.object_binding import codes, encoder, probes, run_experiment
from experiments.patch_filling import Filler, covered, filling_error
from jattn.lens import object_binding as binding
from jattn.nn import VisionTransformerConfig
from jattn.tasks.instance_codes import coded_patches, directions
from jattn.tasks.look_alikes import look_alikes
from jattn.training import cli

TOY = [
    "seeds=1", "codes.dim=8", "codes.rank=2", "codes.steps=2", "codes.batch_size=2", "codes.test=4",
    "encoder.dim=8", "encoder.heads=2", "encoder.layers=1", "encoder.rank=2",
    "encoder.encoder_steps=2", "encoder.steps=2", "encoder.batch_size=2", "encoder.test=6",
    "encoder.patch=6", "encoder.hidden=4",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="object_binding", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_all_studies(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert {"products", "low-rank", "exchanged", "emerges", "deeper", "needed"} <= set(claims)
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    for name in ("codes", "binding", "pairs"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 3_000


def test_logits_of_all_pairs_are_those_of_each():
    params = probes.init(jax.random.key(0), 5, 3)
    params["biases"] = jnp.array([0.1, -0.2, 0.3])
    x = jax.random.normal(jax.random.key(1), (2, 4, 5))
    found = probes.pair_logits(params, x)
    for name, probe in (
        (probes.LINEAR, binding.linear_probe),
        (probes.DIAGONAL, binding.diagonal_probe),
        (probes.QUADRATIC, binding.quadratic_probe),
    ):
        own = binding.pairwise(
            probe, x, x, params[name], params["biases"][probes.PROBES.index(name)]
        )
        np.testing.assert_allclose(found[name], own, atol=1e-5)


def test_pairs_of_one_object_and_of_two_count_alike_and_the_ground_does_not():
    objects = jnp.array([[0, 0, 1, -1]])
    same = binding.same_object(objects)
    weight = probes.shares(objects >= 0, same)
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose((weight * same).sum(), 0.5, rtol=1e-6)
    assert (weight[0, 3] == 0).all()
    # A probe that knows: codes of length one, and a bias between.
    x = jnp.array([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 5.0]]])
    params = probes.init(jax.random.key(0), 2, 2)
    params[probes.QUADRATIC] = jnp.eye(2)
    params[probes.LINEAR] = jnp.zeros(2)
    params["biases"] = jnp.array([1.0, 0.0, 0.0])
    found = probes.accuracies(params, x, objects)
    assert found[probes.QUADRATIC] == 1
    assert found[probes.LINEAR] == 0.5  # "the same", whatever it sees


def test_codes_have_no_label_and_look_alikes_one_colour():
    axes = directions(jax.random.key(0), dim=8, classes=3, rank=2)
    draw = jax.vmap(lambda key: coded_patches(key, axes, noise=0.0))
    images = draw(jax.random.split(jax.random.key(1), 50))
    np.testing.assert_allclose(images.patches[:, :4].std(1), 0, atol=1e-5)  # one object
    kinds = (images.patches @ axes)[..., :3]
    np.testing.assert_allclose(kinds, 3 * jax.nn.one_hot(images.classes, 3), atol=1e-4)
    own = (images.patches @ axes)[..., 3:]
    assert abs(float((own[:, 0] * own[:, 4]).mean())) < 0.5  # two objects of a class

    drawn = jax.jit(jax.vmap(look_alikes))(jax.random.split(jax.random.key(2), 40))
    for objects, colors in zip(np.asarray(drawn.objects), np.asarray(drawn.colors), strict=True):
        of = {o: set(colors[objects == o]) for o in range(3)}
        assert all(len(found) == 1 for found in of.values())
        assert len(set.union(*of.values())) == 2
        assert (colors[objects < 0] == -1).all()


def test_layers_end_in_what_the_encoder_gives_and_hidden_patches_alone_count():
    config = VisionTransformerConfig(
        classes=1, height=4, width=4, channels=1, patch=2, dim=8, heads=2, layers=2
    )
    filler = Filler(config, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (2, 4, 4, 1))
    states = encoder.layers_of(filler.encoder, images)
    assert states.shape == (3, 2, 4, 8)
    np.testing.assert_allclose(states[-1], filler.encoder.tokens(images), atol=1e-5)
    hidden = jnp.array([[True, False, False, False], [False, False, False, True]])
    shown = covered(images, hidden, 2)
    assert (shown[0, :2, :2] == -2).all()
    np.testing.assert_array_equal(shown[0, 2:], images[0, 2:])
    filled = filler(shown)
    error = filling_error(filled, images, hidden, 2)
    np.testing.assert_allclose(
        error, filling_error(filled.at[0, 1].add(7.0), images, hidden, 2), rtol=1e-6
    )
    assert filling_error(filled.at[0, 0].add(7.0), images, hidden, 2) > error + 1


def test_verdicts_of_made_numbers():
    one = np.array([1.0, 1.0])
    found = {"linear": 0.5 * one, "diagonal": 0.6 * one, "quadratic": 0.99 * one,
             "class": 0.9 * one, "cut": np.tile([0.6, 0.7, 0.8, 0.98], (2, 1)),
             "swapped": np.tile([0.95, 0.9, 0.9, 0.9], (2, 1))}  # fmt: skip
    assert all(c.holds for c in codes._claims(found, 4))
    assert [c.id for c in codes._claims(found, 1) if not c.holds] == ["low-rank", "exchanged"]
    rows = {"linear": [0.5, 0.5, 0.5], "class": [0.8, 0.8, 0.8], "quadratic": [0.8, 0.95, 0.9],
            "bound": [0.2, 0.4, 0.2], "random": [0.2, 0.2, 0.3]}  # fmt: skip
    layers = {"whole": np.array([0.1])} | {name: np.array([row]) for name, row in rows.items()}
    claims = {c.id: c for c in encoder._claims(layers)}
    assert all(c.holds for c in claims.values())
    assert claims["needed"].measured == pytest.approx(2.0)
    layers["bound"] = layers["random"]
    assert [c.id for c in encoder._claims(layers) if not c.holds] == ["needed"]


def test_bad_settings(tmp_path, capsys):
    for study, setting, message in (
        ("codes", "codes.dim=4", "codes.dim: expected at least classes + rank = 5, got 4"),
        ("encoder", "encoder.patch=5", "encoder.patch: expected a divisor of height=24, got 5"),
        ("binding", "seeds=1", "study: expected any of codes, encoder or all"),
    ):
        assert run_toy(tmp_path, f"study={study}", setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
