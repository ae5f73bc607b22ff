"""Sequences longer than in training, at toy sizes: claims, figures, bad settings, weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.longer_sequences import PRESETS, get_config
from experiments.longer_sequences import STUDIES, run_experiment
from experiments.longer_sequences.needle import mass
from experiments.longer_sequences.period import melodies
from experiments.longer_sequences.softplus import weights
from jattn.mechanisms import zoo
from jattn.training import cli

SMALL = ("steps=4", "seeds=1", "batch_size=8", "test_size=4")
TOYS = {
    "period": ("dim=8", "heads=2", "layers=1", "length=14", *SMALL),
    "needle": ("dim=8", "heads=2", "ratio=2", "trained=4", "among=(4,8)", *SMALL),
    "softplus": ("dim=8", "heads=2", "layers=1", "text_length=8", "factors=(1,2)", *SMALL),
}


def run_toy(study, folder, *extra):
    argv = ["prog", f"--workdir={folder}", f"--config.study={study}"]
    argv += [f"--config.{study}.{setting}" for setting in (*TOYS.get(study, ()), *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="longer_sequences", argv=argv)
    return stopped.value.code


def test_every_study_has_settings_and_a_toy():
    assert set(TOYS) == set(STUDIES)
    assert all(study in get_config(preset) for study in STUDIES for preset in PRESETS)


@pytest.mark.parametrize("study", TOYS)
@pytest.mark.slow
def test_claims_and_figures(tmp_path, study):
    status = run_toy(study, tmp_path)
    claims = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    if study == "period":  # Four steps teach nothing: both know as little at twice the length.
        assert not claims["period-twice"]["holds"]
        assert claims["period-twice"]["measured"] == pytest.approx(1, abs=0.15)
        assert status == 3
    if study == "softplus":  # These need no training.
        assert claims["softplus-robust"]["holds"]
        assert claims["softplus-thins-out"]["holds"]
    (figure,) = (tmp_path / "figures").glob("*.png")
    assert figure.stat().st_size > 10_000


def test_melodies_repeat():
    example = melodies(get_config().period, 40)(jax.random.key(0))
    n = int(example.counts.argmax()) + 1  # what comes after the first period can be told
    assert 4 <= n <= 12
    np.testing.assert_array_equal(example.tokens[n:], example.tokens[:-n])
    np.testing.assert_array_equal(example.targets[:-1], example.tokens[1:])


def test_mass_is_the_share_of_the_weight():
    """With equal scores everywhere both maps are uniform, and so is their difference."""
    x, source = jnp.ones((2, 1, 8)), jnp.ones((2, 5, 8))
    name = "grouped_differential_attention"
    for ratio, mixer in (
        (None, zoo.make("softmax_attention", dim=8, heads=2)),
        (2, zoo.make(name, dim=8, heads=2, ratio=2)),
    ):
        params = mixer.init(jax.random.key(0))
        found = mass(mixer, ratio, params, x, source, jnp.eye(5))
        np.testing.assert_allclose(found, 0.2, rtol=1e-5)


def test_weight_of_one_key_is_the_softmax_of_its_score():
    """Among few keys in 64 dimensions others score near 0: e^(8 x 0.8) over itself and n - 1."""
    found = weights(jax.random.key(0), 16, 64)
    expected = np.exp(6.4) / (np.exp(6.4) + 15 * np.exp(0.5))  # e^(s^2 / 2), s = 1
    assert found[0] == pytest.approx(expected, abs=0.02)
    assert found[3] > 0.99


@pytest.mark.parametrize(
    ("study", "setting", "message"),
    [
        ("nothing", "", "study: expected"),
        ("period", "shortest=13", "period.shortest: expected 1 <= shortest <= longest"),
        ("needle", "ratio=3", "needle.ratio: expected a divisor of 2 heads, got 3"),
        ("softplus", "factors=(1,)", "softplus.factors: expected 1 and then larger ones"),
        ("softplus", "trained=('LSSA',)", "softplus.trained: expected some of softmax"),
    ],
)
def test_bad_settings(tmp_path, capsys, study, setting, message):
    assert run_toy(study, tmp_path, *([setting] if setting else [])) == 2
    assert message in capsys.readouterr().err


def test_unknown_presets():
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
