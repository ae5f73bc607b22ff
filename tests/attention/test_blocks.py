"""Sizes of tiles: from the committed table where it knows, given, or the defaults."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jattn import attend, masks
from jattn.attention import Blocks, blocks, explain
from jattn.attention.blocks import CHIPS, HEAD_SIZES, check_blocks, class_name

TABLE = json.loads(Path(blocks.__file__).with_name("block_table.json").read_text())
LONG = jnp.ones((1, 1024, 1, 100), jnp.bfloat16)


def on_chip(kind):
    device = AbstractDevice(device_kind=kind, num_cores=None, platform="tpu")
    mesh = AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def test_the_table_is_of_known_chips_and_classes_and_of_sizes_that_can_be():
    names = {class_name(size, mask) for size in HEAD_SIZES for mask in ("causal", "window")}
    assert set(TABLE) <= set(CHIPS.values())
    assert set(TABLE) >= {"v5e", "v6e"}
    for chip in TABLE:
        assert set(TABLE[chip]) <= names
        for entry in TABLE[chip].values():
            own = Blocks(*(entry[field] for field in Blocks._fields))
            check_blocks(own)
            assert own.key % own.key_part == own.backward_key % own.backward_key_part == 0
            # What an estimate is to be trusted for, see experiments.tools.tune.
            assert own.query % own.key == own.backward_key % own.backward_query == 0


@pytest.mark.parametrize("mask", [None, masks.causal(), masks.sliding_window(300)])
def test_blocks_are_those_of_the_chip_and_the_class(mask):
    name = "heads up to 128 " + ("window" if mask is not None and mask.low else "causal")
    entry = TABLE["v5e"][name]
    with on_chip("TPU v5 lite"):
        selection = explain(LONG, LONG, LONG, mask=mask)
    assert selection.chosen == "pallas"
    assert selection.blocks == Blocks(*(entry[field] for field in Blocks._fields))
    assert f"from the table for v5e, {name}" in str(selection)


@pytest.mark.parametrize(
    ("kind", "array", "options", "reason"),
    [
        ("TPU v4", LONG, {}, "the table has no chip 'TPU v4'"),
        ("TPU v5 lite", LONG.astype(jnp.float32), {}, "no dtype float32"),
        ("TPU v5 lite", jnp.ones((1, 1024, 1, 300), jnp.bfloat16), {}, "no head size 300"),
        ("TPU v5 lite", LONG, {"mask": masks.prefix(40)}, "no mask that is no band"),
    ],
)
def test_what_the_table_does_not_know_gets_the_defaults(kind, array, options, reason):
    with on_chip(kind):
        selection = explain(array, array, array, **options)
    assert selection.blocks == Blocks()
    assert "from the defaults" in str(selection)
    assert reason in str(selection)


def test_given_blocks_go_before_the_table_and_are_checked():
    own = Blocks(query=256)
    with on_chip("TPU v5 lite"):
        selection = explain(LONG, LONG, LONG, implementation=own)
    assert selection.blocks == own
    assert "query=256" in str(selection)
    assert "from the caller" in str(selection)
    with pytest.raises(ValueError, match="expected key_part a multiple of 128, got 64"):
        attend(LONG, LONG, LONG, implementation=Blocks(key_part=64))
