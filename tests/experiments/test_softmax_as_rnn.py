"""The experiment end to end at toy sizes: files, claims, bad settings."""

import json
from typing import Any

import numpy as np
import pytest

from configs.softmax_as_rnn import PRESETS, get_config
from experiments.softmax_as_rnn import run_experiment
from experiments.softmax_as_rnn.ablations import _claims, parse
from jattn.training import Run, UsageError, cli

# One device: tiny steps shared by eight would mostly wait for one another.
TOY = [
    "--config.parallel.mesh.data=1",
    "--config.orders.draws=2",
    "--config.orders.length=16",
    "--config.orders.dim=4",
    "--config.orders.scales=(0.25,1.0)",
    "--config.orders.orders=(0,2,4,6,10)",
    "--config.dim=4",
    "--config.layers=1",
    "--config.steps=2",
    "--config.batch_size=2",
    "--config.test_size=4",
]


def run(workdir, *extra):
    argv = ["prog", f"--workdir={workdir}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="softmax_as_rnn", argv=argv)
    return stopped.value.code


def test_orders_and_the_denominator(tmp_path):
    # So few draws of so few tokens do not have the known errors.
    assert run(tmp_path, "--config.study=orders") in (0, 3)
    claims = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    assert {f"R{n}" for n in range(1, 9)} == {name.split("-")[0] for name in claims}
    assert all(claims[name]["holds"] for name in ("R1-10", "R2-4", "R3", "R4", "R5", "R7", "R8"))
    assert (tmp_path / "figures" / "error_by_order.png").stat().st_size > 10_000


@pytest.mark.slow
def test_ablations_train_and_draw(tmp_path):
    extra = ["--config.variants=('softmax','linear_relu')", "--config.task=text"]
    assert run(tmp_path, "--config.study=ablations", *extra) in (0, 3)
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {claim["id"] for claim in claims} == {"A5"}
    for name in ("loss_over_steps", "loss_by_variant"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_every_claim_is_stated_and_may_fail():
    config: Any = get_config("full")
    right = dict.fromkeys(config.variants, 0.5)
    loss = dict.fromkeys(config.variants, 1.0) | {"taylor_2": 1.3, "taylor_4": 1.2, "taylor_6": 1.1}
    loss |= {name: 2.0 for name in config.variants if "linear" in name or "ReLU" in name}
    loss |= {"softmax_divs": 1.4, "softmax_gate": 1.6}

    def claims(losses):
        ends = {name: np.full(2, value) for name, value in losses.items()}
        return {claim.id.split("-")[0]: claim.holds for claim in _claims(config, ends, right)}

    assert claims(loss) == {f"A{n}": True for n in range(1, 10)}
    assert not claims(loss | {"softmax_detach_denom": 1.5})["A7"]
    assert not claims(loss | {"softmax_divs": 1.0})["A8"]
    assert not claims(loss | {"taylor_6": 1.25})["A3"]
    assert not claims(loss | {"linear_elu": 0.9})["A5"]
    assert not claims(loss | {"softmax": 1.5})["A1"]
    assert set(claims({"softmax": 1.0, "linear_relu": 2.0})) == {"A5"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "orders,nothing"}, "study: expected any of"),
        ({"task": "images"}, "task: expected recall or text"),
        ({"pairs": 20}, "length: expected an even number"),
        ({"variants": ("softmax", "softmax")}, "variants: expected each one once"),
        ({"variants": ("softmin",)}, "variants: no variant 'softmin'; there are taylor_N, softmax"),
        ({"variants": ("taylor_3",)}, "variants: normalizer: expected another than 'sum'"),
        ({"positions": "learned", "heads": 3}, "variants: heads: expected a divisor of dim=16"),
        ({"orders": {"orders": (2, 4)}}, "orders.orders: expected even numbers with 0, 2, 4, 6"),
        ({"orders": {"scales": (4.0, 1.0)}}, "orders.scales: expected rising numbers with 1.0"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, change, message):
    config = get_config()
    config.update({"study": "orders", **change})
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)


def test_presets_share_their_fields_and_have_variants_that_exist():
    small = get_config().to_dict()
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.to_dict().keys() == small.keys()
        assert len({parse(name) for name in config.variants}) == len(config.variants)
    with pytest.raises(ValueError, match="preset: expected one of small, full, paper"):
        get_config("huge")
