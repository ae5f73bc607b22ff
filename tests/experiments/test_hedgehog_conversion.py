"""The experiment end to end at toy sizes: files, claims, bad settings."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.hedgehog_conversion import get_config
from experiments.functional import decoder
from experiments.hedgehog_conversion import convert, converted, images, run_experiment
from experiments.hedgehog_conversion.features import spearman, weights_of
from jattn.attention import attend
from jattn.mechanisms.linear.hedgehog import hedgehog
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.training import cli

TOY = [
    "--config.parallel.mesh.data=1",
    "--config.features.draws=20",
    "--config.features.count=8",
    "--config.vocabulary=16",
    "--config.length=8",
    "--config.pairs=2",
    "--config.dim=4",
    "--config.layers=1",
    "--config.seeds=1",
    "--config.batch_size=4",
    "--config.test_size=8",
    "--config.teacher.steps=2",
    "--config.distillation.steps=2",
    "--config.fine_tuning.steps=2",
    "--config.images.dim=4",
    "--config.images.layers=1",
    "--config.images.seeds=1",
    "--config.images.epochs=1",
    "--config.images.batch_size=700",
    "--config.images.distillation.steps=2",
    "--config.images.fine_tuning.steps=2",
]


def run(workdir, *extra):
    argv = ["prog", f"--workdir={workdir}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="hedgehog_conversion", argv=argv)
    return stopped.value.code


def test_feature_maps_state_their_claims(tmp_path):
    assert run(tmp_path, "--config.study=features") in (0, 3)
    claims = [claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())]
    assert claims == ["monotone", "spiky"]  # other sizes than those with known numbers
    assert (tmp_path / "figures" / "spikes.png").stat().st_size > 5_000


@pytest.mark.slow
def test_conversion_states_its_claims(tmp_path):
    assert run(tmp_path, "--config.study=conversion") in (0, 3)
    claims = [claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())]
    assert claims == ["divergence", "swap", "swap-share", "fine-tuned", "kept"]
    for name in ("conversion", "learned_weights"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


@pytest.mark.slow
def test_conversion_of_images_states_its_claims(tmp_path):
    assert run(tmp_path, "--config.study=images") in (0, 3)
    claims = [claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())]
    assert claims == ["images-divergence", "images-swap", "images-swap-share", "images-kept"]
    assert (tmp_path / "figures" / "image_conversion.png").stat().st_size > 5_000


def test_patches_of_images_see_all_others():
    """Weights of an untrained student, read with values, are what its mixer gives."""
    config: Any = get_config("small")
    student = images.classifier(config, (8, 8, 1), "hedgehog")
    module = student.module(student.init(jax.random.key(0)))
    pixels = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    layers = images.queries_and_keys(module, pixels)
    assert len(layers) == config.images.layers
    weights = convert.student_weights("distilled", module, layers, causal=False)[0]
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert float(weights.min()) > 0
    params, (query, key) = module.blocks[0].mixer.arrays(), layers[0]
    value = jax.random.normal(jax.random.key(2), query.shape)
    expected = hedgehog(query, key, value, params["query_map"], params["key_map"], causal=False)
    np.testing.assert_allclose(jnp.einsum("bhts,bshe->bthe", weights, value), expected, atol=1e-5)


def test_verdicts_of_made_images():
    def found(swapped, tuned):
        accuracy = {"distilled": (swapped, tuned), "undistilled": (0.3, 0.9), "elu1": (0.2, 0.8)}
        return {
            "teacher": np.full(3, 0.98),
            **{f"accuracy_{n}": np.tile(np.array(a), (3, 1)) for n, a in accuracy.items()},
            **{
                f"divergence_{n}": np.full((3, 2), 0.1 if n == "distilled" else 0.5)
                for n in accuracy
            },
        }

    chosen = get_config("small").images  # type: ignore[attr-defined]
    verdicts = lambda *given: [c.verdict for c in images.claims_of(chosen, found(*given))]
    assert verdicts(0.95, 0.98) == ["holds"] * 4
    assert verdicts(0.25, 0.9) == ["holds", "fails", "fails", "fails"]


def test_a_student_keeps_all_that_the_teacher_has():
    config: Any = get_config("small")
    teacher = decoder(converted.settings(config, "softmax_attention"))
    student = decoder(converted.settings(config, "hedgehog"))
    params, own = teacher.init(jax.random.key(0)), student.init(jax.random.key(1))
    merged = convert.taken_over(teacher, student, params, own)
    learns = convert.is_map(student, own)
    assert sum(learns) == 2 * config.layers
    from_teacher = [leaf for leaf, is_map in zip(merged, learns, strict=True) if not is_map]
    assert len(from_teacher) == len(params)
    same = lambda a, b: a.shape == b.shape and bool((a == b).all())
    assert all(any(same(leaf, other) for other in params) for leaf in from_teacher)


def test_queries_keys_and_weights_are_those_of_the_model():
    config: Any = get_config("small")
    student = decoder(converted.settings(config, "hedgehog"))
    module = student.module(student.init(jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (1, config.length), 0, config.vocabulary)
    layers = converted.queries_and_keys(module, tokens)
    (weights, _) = convert.student_weights("distilled", module, layers)
    value = jax.random.normal(jax.random.key(2), (1, config.length, config.heads, 3))
    params, (query, key) = module.blocks[0].mixer.arrays(), layers[0]
    expected = hedgehog(query, key, value, params["query_map"], params["key_map"], causal=True)
    np.testing.assert_allclose(jnp.einsum("bhts,bshe->bthe", weights, value), expected, atol=1e-5)
    assert float(convert.divergence(weights, weights)) == pytest.approx(0, abs=1e-6)
    softmax = convert.softmax_weights(*layers[0])
    assert float(convert.divergence(softmax, weights)) > 1e-3


def test_rank_correlation_and_weights():
    x = jnp.array([0.1, 0.5, 0.2, 0.9])
    assert float(spearman(x, jnp.exp(3 * x))) == pytest.approx(1, abs=1e-6)
    assert float(spearman(x, -x)) == pytest.approx(-1, abs=1e-6)
    query, key = jax.random.normal(jax.random.key(0), (2, 5, 4))
    for name in ("softmax", "elu1", "joint_softmax"):
        np.testing.assert_allclose(weights_of(name, query, key).sum(-1), 1, atol=1e-6)
    # Read with them, values are what the mechanisms give.
    value = jax.random.normal(jax.random.key(1), (1, 5, 1, 3))
    query_, key_ = query[None, :, None], key[None, :, None]
    eye = {"weight": jnp.eye(4)[None]}
    mechanisms = {
        "softmax": attend(query_, key_, value),
        "elu1": linear_attention(query_, key_, value),
        "relu": linear_attention(query_, key_, value, feature_map="relu"),
        "joint_softmax": hedgehog(query_, key_, value, eye, eye, feature_map="joint_softmax"),
        "exp": hedgehog(query_, key_, value, eye, eye, feature_map="exp"),
    }
    for name, expected in mechanisms.items():
        read = weights_of(name, query, key) @ value[0, :, 0]
        np.testing.assert_allclose(read, expected[0, :, 0], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("study=nothing", "study: expected any of features, conversion, images"),
        ("pairs=5", "length: expected an even number"),
        ("heads=3", "heads: expected a divisor"),
        ("images.heads=3", "images: heads: expected a divisor"),
        ("images.dataset=cats", "images.dataset: images: expected one of"),
    ],
)
def test_bad_settings_are_refused_in_a_line(tmp_path, capsys, setting, message):
    assert run(tmp_path, "--config.study=features", f"--config.{setting}") == 2
    assert message in capsys.readouterr().err


def test_presets():
    assert get_config("paper").seeds == 5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
