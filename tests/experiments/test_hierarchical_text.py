"""Attention over the tree of phrases, at toy sizes: the task, claims and a figure."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from configs.hierarchical_text import PRESETS, get_config
from experiments.hierarchical_text import claims, run_experiment
from experiments.hierarchical_text.encoders import weights_of_tree
from jattn.tasks.negated_phrases import NOT, negated_phrases, vocabulary_of
from jattn.training import cli

TOY = {"dim": 8, "phrases": 3, "documents": 16, "steps": 2, "batch_size": 4, "test_size": 16}


def test_most_phrases_decide():
    words = 3
    draw = jax.jit(jax.vmap(negated_phrases(5, words)))
    tokens, positive = map(np.asarray, draw(jax.random.split(jax.random.key(0), 400)))
    phrases = tokens.reshape(400, 5, 4)
    assert tokens.min() == NOT
    assert tokens.max() == vocabulary_of(words) - 1
    negative = (phrases >= 1) & (phrases <= words)
    good = (phrases > words) & (phrases <= 2 * words)
    assert ((negative | good).sum(-1) == 1).all()
    negated = (phrases == NOT).sum(-1)
    assert set(negated.ravel()) == {0, 1}
    means = good.any(-1) ^ (negated == 1)
    np.testing.assert_array_equal(positive, means.sum(-1) >= 3)
    assert abs(positive.mean() - 0.5) < 0.1
    with pytest.raises(ValueError, match="phrases: expected an odd number, got 4"):
        negated_phrases(4, 3)
    with pytest.raises(ValueError, match="words: expected at least 1, got 0"):
        negated_phrases(3, 0)


def test_claims_of_given_results():
    rows = {
        "softmax": {"new": [0.8, 0.9], "replaced": [[0.8, 0.9], [0.78, 0.86], [0.5, 0.6]]},
        "tree": {"new": [0.95, 0.91]},
        "tree_across_phrases": {"new": [0.7, 0.7]},
    }
    arrays: Any = {
        name: {field: np.array(value) for field, value in row.items()} for name, row in rows.items()
    }
    # 16 leaves: 4 families and the root, of 4 x 4 weights each.
    assert weights_of_tree(16) == 5 * 16
    stated = {claim.id: claim for claim in claims(arrays, 80 / 256, 0.9)}
    assert {name: round(claim.measured, 6) for name, claim in stated.items()} == {
        "tree-from-scratch": 0.08,
        "tree-own": 0.23,
        "zero-shot-one": 0.03,
        "zero-shot-all": 0.3,
        "fewer-flops": 0.3125,
    }
    # One of two seeds is not most of them.
    assert {name for name, claim in stated.items() if claim.holds} == {"tree-own", "zero-shot-one"}


@pytest.mark.slow
def test_two_steps_teach_nothing(tmp_path):
    argv = ["prog", f"--workdir={tmp_path}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{name}={value}" for name, value in TOY.items()]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="hierarchical_text", argv=argv)
    found = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    assert stopped.value.code == (0 if all(claim["holds"] for claim in found.values()) else 3)
    # 12 words: families of 4, 4, 4 and their root.
    assert found["fewer-flops"]["measured"] == pytest.approx((3 * 16 + 16 * 1) / 144)
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 5_000


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.phrases % 2 == 1
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
