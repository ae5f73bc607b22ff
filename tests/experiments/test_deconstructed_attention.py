"""Attention taken apart, at toy sizes: models, claims, bad settings."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from configs.deconstructed_attention import PRESETS, get_config
from experiments.deconstructed_attention import claims, run_experiment
from experiments.deconstructed_attention.decoders import VARIANTS, fixed_stream, make
from experiments.token_tasks import make_task
from jattn.training import cli

TOY = {"dim": 8, "heads": 2, "layers": 2, "text_length": 8}
FEW = {"steps": 2, "seeds": 2, "batch_size": 4, "test_size": 4, "variants": "('mlp',)"}


def toy() -> Any:
    config: Any = get_config()
    config.update(TOY)
    return config


def test_variants_stand_in_every_other_layer_and_have_as_many_parameters():
    config = toy()
    config.layers, config.dim = 3, 48
    task = make_task("text", config)
    wanted = make(config, task, None, "uniform").model.parameters
    for name, (mechanism, _) in VARIANTS.items():
        made = make(config, task, name, "hybrid")
        names = [layer for layer, _ in made.settings.per_layer()]
        assert names == [mechanism, "softmax_attention", mechanism]
        assert made.variant_layers == (0, 2)
        assert made.model.parameters == wanted


def test_fixed_streams():
    config = toy()
    task = make_task("text", config)
    text = fixed_stream(make(config, task, "fixed", "uniform"), config, task)
    assert text.shape == (1, 8)
    assert text.max() < task.vocabulary
    config.text_length, config.dim = 64, 64
    made = make(config, task, "random", "uniform")
    noise = fixed_stream(made, config, task)
    assert noise.shape == (1, 64, 64)
    embedding = made.model.module(made.model.init(jax.random.key(5))).embed.embedding[...]
    np.testing.assert_allclose(noise.std(), embedding.std(), rtol=0.1)
    for name in ("static", "mlp"):
        assert fixed_stream(make(config, task, name, "uniform"), config, task) is None


def test_claims_of_given_losses():
    both = lambda value: np.array([value, value + 0.2])
    losses = {"standard": both(1.0)}
    for name, values in (("mlp", (1.4, 1.05, 1.5)), ("static", (1.3, 1.2, 2.0))):
        for form, value in zip(("uniform", "hybrid", "skip"), values, strict=True):
            losses[f"{name}, {form}"] = both(value)
    stated = {claim.id: claim for claim in claims(("mlp", "static"), losses)}
    measured = {name: round(claim.measured, 6) for name, claim in stated.items()}
    assert measured == {
        "mixing": 0.4,
        "order-static": 0.3,
        "order-mlp": 0.1,
        "hybrid-mlp": 0.05,
        "skip-mlp": 0.45,
        "hybrid-static": 0.2,
        "skip-static": 0.8,
    }
    failing = {name for name, claim in stated.items() if not claim.holds}
    assert failing == {"skip-mlp", "hybrid-static"}


def run(folder, **settings):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{name}={value}" for name, value in (TOY | FEW | settings).items()]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="deconstructed_attention", argv=argv)
    return stopped.value.code


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_teach_nothing(tmp_path, variant):
    assert run(tmp_path, variants=f"('{variant}',)") == 3
    found = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    assert {f"hybrid-{variant}", f"skip-{variant}"} <= set(found)
    # What two models drawn at random differ by is less than what is called a collapse.
    assert abs(found[f"hybrid-{variant}"]["measured"]) < 0.5
    assert not found[f"skip-{variant}"]["holds"]
    assert (tmp_path / "figures" / "deconstructed.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variants": "('cats',)"}, "variants: expected any of mlp, approximate"),
        ({"layers": 1}, "layers: expected at least 2, got 1"),
    ],
)
def test_bad_settings(tmp_path, capsys, settings, message):
    assert run(tmp_path, **settings) == 2
    assert message in capsys.readouterr().err


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert set(config.variants) <= set(VARIANTS)
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
