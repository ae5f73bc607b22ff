"""The bake-off at toy sizes: rows, failures as rows, bad settings."""

from typing import Any

import jax
import numpy as np
import pytest

from configs.bakeoff import PRESETS, get_config
from experiments.bakeoff import run_experiment, table
from experiments.bakeoff.models import matched_model
from experiments.bakeoff.study import chosen_mechanisms, compare
from experiments.functional import parse_mechanisms
from jattn.training import Run, UsageError

TOY = {
    "dim": 16,
    "heads": 2,
    "layers": 1,
    "text_length": 16,
    "length": 16,
    "vocabulary": 16,
    "pairs": 2,
    "steps": 4,
    "batch_size": 8,
    "seeds": 2,
    "test_size": 8,
    "stretches": (1, 2),
    "tasks": "text",
    "mechanisms": "softmax_attention",
    "parallel": {"mesh": {"data": 1}},
}


def toy(**changes) -> Any:
    config: Any = get_config()
    config.update({**TOY, **changes})
    return config


def test_rows_table_and_figures(tmp_path):
    config = toy()
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    assert claims[0].id == "fair"
    assert claims[0].holds
    text = (tmp_path / "table.md").read_text()
    assert "`softmax_attention`" in text
    for figure in ("length", "quality_and_cost"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 10_000


def test_a_mechanism_that_fails_is_a_row_that_says_why(tmp_path, monkeypatch):
    def broken(mechanisms, *args):
        raise ValueError(f"{mechanisms[0][0]} is broken\nin two lines")

    monkeypatch.setattr("experiments.bakeoff.study.matched_model", broken)
    config = toy(mechanisms="retention")
    with Run.open(tmp_path, config, name="toy") as run:
        rows = compare(run, config)
    assert rows[0].failed == "retention is broken"
    assert "failed: retention is broken" in table.markdown(rows, config.stretches)
    assert all(len(line) <= 100 for line in table.plain(rows, config.stretches))


def test_parameters_are_matched():
    config = toy()
    sizes = [
        matched_model([(name, {})], 50, 16, config).parameters
        for name in ("softmax_attention", "gated_delta_rule", "mixture_of_heads")
    ]
    assert np.ptp(sizes) <= 0.05 * sizes[0]


def test_mechanisms_may_alternate():
    model = matched_model([("gated_mlp", {}), ("softmax_attention", {})], 50, 16, toy(layers=3))
    mixers = [block.mixer.params for block in model.module(model.init(jax.random.key(0))).blocks]
    assert ["key" in params for params in mixers] == [False, True, False]


def test_entries_may_have_options():
    assert parse_mechanisms("linear_attention:feature_map=elu:normalize=False+gated_mlp") == [
        ("linear_attention", {"feature_map": "elu", "normalize": False}),
        ("gated_mlp", {}),
    ]
    assert len(chosen_mechanisms(toy(mechanisms="all"))) > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mechanisms": "softmax_atention"}, "mechanisms: .*did you mean softmax_attention"),
        ({"mechanisms": "retention,retention"}, "mechanisms: expected each one once"),
        ({"mechanisms": "retention:width=3"}, "mechanisms: retention has no option 'width'"),
        ({"mechanisms": "gated_mlp+attentoin"}, "mechanisms: .*no 'attentoin'"),
        ({"tasks": "text,chess"}, "tasks: expected any of .* got 'chess'"),
        (
            {"tasks": "recall", "pairs": 100},
            "tasks: length: expected an even number of at least 4 x 100",
        ),
        ({"text": "/nowhere"}, "tasks: text: /nowhere cannot be read"),
    ],
)
def test_bad_settings_are_named(tmp_path, change, message):
    config = toy(**change)
    with Run.open(tmp_path, config, name="toy") as run, pytest.raises(UsageError, match=message):
        run_experiment(config, run)


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
