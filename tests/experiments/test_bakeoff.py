"""The bake-off at toy sizes: rows, failures as rows, resuming, bad settings."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.bakeoff import PRESETS, get_config
from experiments.bakeoff import run_experiment
from experiments.compare import sinks, table
from experiments.compare.models import matched_model
from experiments.compare.study import chosen_mechanisms, compare
from experiments.functional import parse_mechanisms
from jattn.attention.positions import rotary
from jattn.training import Run, UsageError

TOY = {
    "study": "table",
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


def test_rows_table_figures_and_resuming(tmp_path):
    config = toy()
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    assert claims[0].id == "fair"
    assert claims[0].holds
    text = (tmp_path / "table.md").read_text()
    assert "`softmax_attention`" in text
    for figure in ("length", "quality_and_cost"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 10_000
    before = json.loads(json.dumps([claim.entry() for claim in claims]))
    with Run.open(tmp_path, config, name="toy") as run:
        again = run_experiment(config, run)
    assert json.loads(json.dumps([claim.entry() for claim in again])) == before
    assert (tmp_path / "table.md").read_text() == text


def test_a_mechanism_that_fails_is_a_row_that_says_why(tmp_path, monkeypatch):
    def broken(mechanisms, *args):
        raise ValueError(f"{mechanisms[0][0]} is broken\nin two lines")

    monkeypatch.setattr("experiments.compare.study.matched_model", broken)
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


def test_gates_and_sinks(tmp_path, monkeypatch):
    monkeypatch.delitem(sinks.VARIANTS, "gate by element")
    sizes = dict(vocabulary=8, length=8, dim=8, layers=1, steps=2, batch_size=4, test_size=8)
    config = toy(study="sinks", sinks=sizes)
    with Run.open(tmp_path, config, name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert {"gate-by-head-closed", "gate-by-head-loss"} <= set(claims)
    assert (tmp_path / "figures" / "sinks.png").stat().st_size > 5_000


def test_the_weight_of_the_first_token_is_that_of_softmax():
    x = jax.random.normal(jax.random.key(0), (1, 5, 4))
    params = {name: jnp.eye(4) for name in ("query", "key", "value")}
    turned = rotary(x[:, :, None])[0, :, 0]
    scores = jnp.where(jnp.tri(5, dtype=bool), turned @ turned.T / 2, -jnp.inf)
    found = sinks.first_token_weight(params, x, 1)[0, :, 0]
    np.testing.assert_allclose(found, jax.nn.softmax(scores)[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_images(tmp_path):
    sizes = dict(datasets=("digits",), variants=("full", "symmetric"), dim=8, heads=2)
    sizes |= dict(epochs=1, batch_size=720)
    config = toy(study="images", images=sizes)
    with Run.open(tmp_path, config, name="toy") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert set(claims) == {
        f"minimal-{what}-digits" for what in ("accuracy", "parameters", "training")
    }
    assert claims["minimal-parameters-digits"].measured < 0.7
    assert (tmp_path / "figures" / "images.png").stat().st_size > 5_000


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
        ({"mechanisms": "gated_mlp+attention"}, "mechanisms: .*no 'attention'"),
        ({"study": "chess"}, "study: expected any of table, sinks, images, got 'chess'"),
        ({"study": "images", "images": {"datasets": ("cats",)}}, "images: expected one of"),
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
