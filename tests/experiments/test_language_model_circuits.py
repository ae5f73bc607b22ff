"""Circuits of a language model that knows nothing: prompts in pairs, what is measured on them."""

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from configs.language_model_circuits import PRESETS, get_config
from experiments.language_model_circuits import run_experiment
from experiments.language_model_circuits.prompts import (
    coloured_objects,
    difference,
    indirect_objects,
    right,
)
from jattn.training import Run
from tests.tiny_language_model import tiny_language_model

TINY = tiny_language_model()
# Studies have the names of their modules.
repair, reuse, tuning = (
    importlib.import_module(f"experiments.language_model_circuits.{name}")
    for name in ("repair", "reuse", "tuning")
)


@pytest.mark.parametrize("make", [indirect_objects, coloured_objects])
def test_prompts_come_in_pairs(make):
    found = make(TINY.tokenizer, np.random.default_rng(0), 12)
    differs = np.asarray(found.clean != found.corrupt).sum(1)
    assert (differs == 1).all()
    rows = np.arange(12)
    np.testing.assert_array_equal(found.clean[rows, found.place], found.good)
    np.testing.assert_array_equal(found.choices[:, :2], np.stack([found.good, found.bad], 1))
    text = TINY.tokenizer.decode(found.clean[0])
    if make is indirect_objects:
        # Each name stands twice in one of the two: who gives is not who gets.
        for row, bad in zip(np.asarray(found.clean), np.asarray(found.bad), strict=True):
            assert (row == bad).sum() == 2
        assert text.endswith(" to")
    else:
        # The object that is asked for is the one behind its color.
        for row, place in zip(np.asarray(found.clean), np.asarray(found.place), strict=True):
            assert row[place + 1] == row[-2]
        assert text.endswith(" is")


def test_what_counts_as_right():
    prompts = indirect_objects(TINY.tokenizer, np.random.default_rng(1), 3)
    logits = jnp.zeros((3, 2, 512)).at[jnp.arange(3), -1, prompts.good].set(2.0)
    assert float(difference(logits, prompts)) == 2
    assert right(logits, prompts).tolist() == [1, 1, 1]
    other = jnp.zeros((3, 2, 512)).at[jnp.arange(3), -1, prompts.bad].set(2.0)
    assert right(other, prompts).tolist() == [0, 0, 0]


def test_forced_heads_look_at_the_answer():
    """No head forced is the model itself; gains are what forcing does, to first order."""
    prompts = coloured_objects(TINY.tokenizer, np.random.default_rng(2), 2)
    none = jnp.zeros((2, 4), bool)
    plain = repair._forced(TINY.model, prompts, none)
    np.testing.assert_array_equal(plain, right(TINY.model(prompts.clean), prompts))


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    for module in (repair, reuse, tuning):
        monkeypatch.setattr(module, "language_model", lambda path: TINY)
    config: Any = get_config()
    config.update(dict(prompts=2, steps=2, together=2, draws=1, circuit=3))
    config.update({"repair": {"heads": 1, "choose": 2, "test": 4}})
    config.update({"tuning": {"steps": 4, "train": 4, "batch_size": 2}})
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    assert len({claim.id for claim in claims}) == len(claims) == 14
    assert len(list((tmp_path / "figures").glob("*.png"))) == 3
    found = np.load(tmp_path / "arrays" / "reuse.npz")
    assert found["circuits"].sum((1, 2)).tolist() == [3, 3]
    # In a model of random weights effects are small, and first order is nearly exact.
    assert np.corrcoef(found["exact"].ravel(), found["first_order"].ravel())[0, 1] > 0.9


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.circuit > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
