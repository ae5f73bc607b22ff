"""The experiment at toy sizes: parts, claims, resuming, bad settings."""

import json

import numpy as np
import pytest

from configs.attention_methods import PARTS, PRESETS, get_config
from experiments.attention_methods import RUN, run_experiment
from experiments.methods.trees import PART
from jattn.training import Run, UsageError, cli


def test_every_part_has_a_function_and_settings():
    assert set(RUN) == set(PARTS)
    assert all(part in get_config(preset) for part in PARTS for preset in PRESETS)


TOYS = {
    "order": ("steps=4", "dim=8", "heads=2", "test_size=5", "seeds=1"),
    "pattern_swap": ("steps=4", "moments=2", "dim=8", "heads=(1,2)", "length=8", "seeds=2"),
    "trees": ("steps=4", "seeds=2", "test_size=8", "layers=1"),
    "segments": ("place.steps=4", "place.seeds=2", "symbol.steps=4", "test_size=8", "dim=8"),
    "transition": ("steps=4", "dim=8", "users=20", "vocabulary=20", "seeds=2", "batch_size=8"),
}


def run_toy(part, folder):
    argv = ["prog", f"--workdir={folder}", f"--config.part={part}"]
    argv += [f"--config.{part}.{setting}" for setting in TOYS[part]]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="attention_methods", argv=argv)
    assert stopped.value.code in (0, 3)  # Four steps teach nothing.
    return (folder / "claims.json").read_text()


@pytest.mark.parametrize("part", [pytest.param(p, marks=pytest.mark.slow) for p in TOYS])
def test_claims_and_figures(tmp_path, part):
    first = run_toy(part, tmp_path)
    claims = {claim["id"]: claim for claim in json.loads(first)}
    assert len(claims) >= 3
    # What no training is needed for.
    for name in {"order-pine", "order-answers-pine", "swap-itself"} & set(claims):
        assert claims[name]["holds"], claims[name]
    (figure,) = (tmp_path / "figures").glob("*.png")
    assert figure.stat().st_size > 10_000
    if part == "trees":
        assert run_toy(part, tmp_path) == first


def test_parts_are_quarters():
    assert np.bincount(PART).tolist() == [4, 4, 4, 4]
    assert PART.reshape(4, 4)[:2, :2].max() == 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("part", "nothing", "part: expected"),
        ("order.facts", 2, "order.facts: expected at least 3"),
        ("transition.clusters", 7, "transition.clusters: expected a divisor of 500 items, got 7"),
        ("pattern_swap.seeds", 1, "pattern_swap.seeds: expected at least 2, got 1"),
        ("pattern_swap.moments", 7, "pattern_swap.moments: expected a divisor of 180 steps"),
    ],
)
def test_bad_settings(tmp_path, field, value, message):
    config = get_config()
    config.part = field.split(".")[0]
    config.update_from_flattened_dict({field: value})
    with Run.open(tmp_path, config, name="toy") as run, pytest.raises(UsageError, match=message):
        run_experiment(config, run)
