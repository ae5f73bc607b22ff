"""Probes at toy sizes: what the parts compute, claims of made accuracies, bad settings."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.attentive_probing import PRESETS, get_config
from experiments.attentive_probing import attributes, digits, run_experiment
from experiments.attentive_probing.bags import Arm, _init, _loss, _read, area_under_curve
from experiments.attentive_probing.probes import Probe, maps_of, probes
from experiments.classifier_arms import entries_of
from jattn.training import cli

TOY = [
    "seeds=1", "attributes.tokens=4", "attributes.dim=8", "attributes.steps=2",
    "attributes.batch_size=4", "attributes.test=16", "digits.dim=8", "digits.heads=2",
    "digits.layers=1", "digits.encoder_steps=2", "digits.steps=2", "digits.batch_size=4",
    "digits.pools=none,efficient_probing:queries=8", "bags.bags=4", "bags.test=16",
    "bags.instances=8", "bags.dim=4", "bags.width=4", "bags.hidden=4", "bags.branches=2",
    "bags.top=4", "bags.seeds=1", "bags.steps=2",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="attentive_probing", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_all_studies(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert {"several-queries", "base-operations", "above-mean", "frontier", "spread"} <= set(claims)
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    assert claims["base-operations"]["holds"]  # whatever was trained
    for name in ("attributes", "poolers", "maps", "bags"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_a_probe_reads_the_mean_where_it_has_no_pool():
    tokens = jax.random.normal(jax.random.key(0), (6, 5, 8))
    probe = Probe(None, 8, 3, rngs=nnx.Rngs(0))
    logits = probe(tokens, training=True)
    mean = tokens.mean(1)
    normed = (mean - mean.mean(0)) / jnp.sqrt(mean.var(0) + 1e-6)
    np.testing.assert_allclose(logits, probe.head(normed), atol=1e-4)
    narrow = Probe(("efficient_probing", {"queries": 2, "reduction": 2}), 8, 3, rngs=nnx.Rngs(0))
    assert narrow(tokens).shape == (6, 3)


def test_maps_of_queries_are_those_that_the_pool_reads_by():
    probe = Probe(("efficient_probing", {"queries": 2}), 8, 3, rngs=nnx.Rngs(0))
    assert probe.pool is not None
    arrays = probe.pool.arrays()
    tokens = jax.random.normal(jax.random.key(0), (3, 5, 8))
    read = jnp.einsum("bqn,bnm->bqm", maps_of(arrays["queries"], tokens), tokens)
    slices = arrays["value"].reshape(8, 2, 4)
    ours = jnp.einsum("bqm,mqe->bqe", read, slices).reshape(3, 1, 8)
    np.testing.assert_allclose(ours, probe.pool(tokens), atol=1e-5)


def test_hidden_instances_get_no_weight_and_one_branch_has_one_loss():
    config: Any = get_config().bags
    config.update(width=4, hidden=4, dim=4)
    arms = {"one": Arm(1, 0.0), "two": Arm(2, 0.0)}
    params = _init(jax.random.key(0), arms, config)
    x = jax.random.normal(jax.random.key(1), (3, 6, 4))
    hidden = jnp.zeros((3, 6, 2), bool).at[:, 2].set(True)
    logits, maps = _read(params["two"], x, hidden)
    assert (maps[:, :, 2] == 0).all()
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    moved = _read(params["two"], x.at[:, 2].set(9.0), hidden)[0]
    np.testing.assert_allclose(logits, moved, atol=1e-5)
    labels = jnp.array([0, 1, 0])
    plain = _read(params["one"], x)[0][:, 0]
    expected = -jax.nn.log_softmax(plain)[jnp.arange(3), labels].mean()
    found = _loss(params["one"], arms["one"], x, labels, jax.random.key(2), 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_area_under_the_curve_counts_pairs():
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert area_under_curve(scores, positive) == 0.75
    assert area_under_curve(-scores, positive) == 0.25
    assert area_under_curve(np.zeros(4), positive) == 0.5


def test_verdicts_of_made_accuracies():
    one, many = np.array([0.8, 0.8]), np.array([0.99, 0.97])
    found = {attributes.MEAN: one - 0.5, attributes.ONE: one, attributes.TWO: many,
             attributes.MANY: many}  # fmt: skip
    claims = {c.id: c for c in attributes._claims(found)}
    assert {id: c.holds for id, c in claims.items()} == {
        "several-queries": True, "one-query": True, "two-queries": True
    }  # fmt: skip
    found[attributes.MANY] = one
    assert {c.id for c in attributes._claims(found) if not c.holds} == {"several-queries"}

    accuracy = {"none": one, "aim": many, digits.OURS: many - 0.02, "simpool": one}
    cost = {"parameters": np.array([0, 900, 100, 50])}
    claims = {c.id: c for c in digits._claims(accuracy, cost, np.array(20.0))}
    assert {id for id, c in claims.items() if c.holds} == {
        "base-operations", "above-mean", "frontier"
    }  # fmt: skip
    assert claims["larger"].note.startswith("aim 0.98")


def test_entries_may_have_commas_in_brackets():
    found = entries_of("none, eca:width=5,fca:frequencies=(0,1)")
    assert [name for name, _ in found] == ["none", "eca:width=5", "fca:frequencies=(0,1)"]
    assert found[0][1] is None
    assert found[2][1] == ("fca", {"frequencies": (0, 1)})


def test_bad_settings(tmp_path, capsys):
    for study, setting, message in (
        ("attributes", "attributes.pools=none,se", "pools: se"),
        ("digits", "digits.dataset=cats", "digits: images: expected one of"),
        ("digits", "digits.patch=3", "digits: patch: expected a divisor of height=8, got 3"),
        ("probing", "seeds=1", "study: expected any of attributes, digits, bags or all"),
    ):
        assert run_toy(tmp_path, f"study={study}", setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    config: Any = get_config(PRESETS[0])
    assert len(probes(config.digits.pools, dim=32, classes=2)) == 18
