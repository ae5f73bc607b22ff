"""The experiment at toy sizes: studies, claims, bad settings."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs.attention_methods import PRESETS, get_config
from experiments.attention_methods import STUDIES, run_experiment
from experiments.attention_methods.trees import PART, inside_parts
from jattn.training import cli


def test_every_study_has_settings_and_a_toy():
    assert all(study in get_config(preset) for study in STUDIES for preset in PRESETS)
    assert set(TOYS) == set(STUDIES)


TOYS = {
    "order": ("steps=4", "dim=8", "heads=2", "test_size=5", "seeds=1"),
    "pattern_swap": ("steps=4", "moments=2", "dim=8", "heads=(1,2)", "length=8", "seeds=2"),
    "trees": ("steps=4", "seeds=2", "test_size=8", "layers=1"),
    "segments": ("place.steps=4", "place.seeds=2", "symbol.steps=4", "test_size=8", "dim=8"),
    "transition": ("steps=4", "dim=8", "users=20", "vocabulary=20", "seeds=2", "batch_size=8"),
}


# The values of claims about models that need not be trained, and claims that need training.
UNTRAINED = {"order-pine": 0.0, "order-answers-pine": 0.0, "swap-itself": 0.0}
TAUGHT = {
    "order": ("order-stated",),
    "pattern_swap": ("swap-trained",),
    "trees": ("trees-parents", "trees-across", "trees-error"),
    "segments": ("segments-spaces", "segments-error"),
    "transition": (),
}


def run_toy(study, folder, *extra):
    argv = ["prog", f"--workdir={folder}", f"--config.study={study}"]
    argv += [f"--config.{study}.{setting}" for setting in TOYS.get(study, ())]
    argv += [f"--config.{setting}" for setting in extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="attention_methods", argv=argv)
    return stopped.value.code


# All each day would take a minute.
@pytest.mark.parametrize(
    "study", [pytest.param(s, marks=() if s == "trees" else pytest.mark.slow) for s in TOYS]
)
def test_claims_and_figures(tmp_path, study):
    status = run_toy(study, tmp_path)
    text = (tmp_path / "claims.json").read_text()
    claims = {claim["id"]: claim for claim in json.loads(text)}
    # What no training is needed for.
    assert {name for name in UNTRAINED if name.startswith(study[:4])} <= set(claims)
    for name, value in UNTRAINED.items():
        if name in claims:
            assert claims[name]["measured"] == pytest.approx(value, abs=1e-3), claims[name]
            assert claims[name]["holds"], claims[name]
    # Four steps teach nothing, and the exit status says so.
    for name in TAUGHT[study]:
        assert not claims[name]["holds"], claims[name]
    assert status == 3
    (figure,) = (tmp_path / "figures").glob("*.png")
    assert figure.stat().st_size > 10_000


def test_parts_are_quarters():
    assert np.bincount(PART).tolist() == [4, 4, 4, 4]
    assert PART.reshape(4, 4)[:2, :2].max() == 0


def test_links_inside_parts():
    """Patches 0, 1, 4, 5 are a part, whose first is the root; one of the others hangs wrong."""
    first = np.array([0, 2, 8, 10])[PART]
    parents = np.where(np.arange(16) == first, 0, first)
    parents[15] = 0
    assert inside_parts(jnp.asarray(parents)[None]) == pytest.approx(11 / 15)


@pytest.mark.parametrize(
    ("study", "setting", "message"),
    [
        ("nothing", "", "study: expected"),
        ("order", "facts=2", "order.facts: expected at least 3"),
        ("transition", "clusters=7", "transition.clusters: expected a divisor of 20 items, got 7"),
        ("pattern_swap", "seeds=1", "pattern_swap.seeds: expected at least 2, got 1"),
        ("pattern_swap", "moments=7", "pattern_swap.moments: expected a divisor of 4 steps"),
    ],
)
def test_bad_settings(tmp_path, capsys, study, setting, message):
    assert run_toy(study, tmp_path, *([f"{study}.{setting}"] if setting else [])) == 2
    assert message in capsys.readouterr().err
