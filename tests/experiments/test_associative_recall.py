"""The experiment end to end at toy sizes: files, claims, bad settings."""

import json

import jax
import numpy as np
import pytest

from configs.associative_recall import get_config
from experiments.associative_recall import run_experiment, trained
from experiments.associative_recall.overwriting import written_twice
from jattn.training import cli

TOY = [
    "--config.parallel.mesh.data=1",
    "--config.overwriting.draws=20",
    "--config.mechanisms=linear_attention",
    "--config.vocabulary=32",
    "--config.tasks=((16,2),(16,4))",
    "--config.sizes=((4,1),(8,1))",
    "--config.steps=2",
    "--config.warm_up=1",
    "--config.batch_size=8",
    "--config.test_size=8",
    "--config.layers=1",
]


def run(workdir, *extra):
    argv = ["prog", f"--workdir={workdir}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="associative_recall", argv=argv)
    if stopped.value.code in (0, 3):  # as the claims say, and not otherwise
        claims = json.loads((workdir / "claims.json").read_text())
        assert stopped.value.code == (0 if all(claim["holds"] for claim in claims) else 3)
    return stopped.value.code


def test_overwriting_states_its_claims(tmp_path):
    assert run(tmp_path, "--config.study=overwriting") in (0, 3)
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert [claim["id"] for claim in claims] == ["overwriting-linear", "overwriting-delta"]


@pytest.mark.slow
def test_recall_states_its_claims(tmp_path):
    assert run(tmp_path, "--config.study=recall") in (0, 3)
    claims = {claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())}
    assert {"capacity-pairs", "capacity-state"} == claims
    for name in ("over_steps", "over_state", "over_pairs"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000
    assert (tmp_path / "recall.md").read_text().count("linear_attention") == 4


def test_every_key_is_written_twice_with_two_values():
    keys, values, second = written_twice(jax.random.key(0), 8, 5)
    chosen = values.argmax(-1)
    assert sorted(np.asarray(chosen[:5])) == sorted(np.asarray(chosen[5:])) == [0, 1, 2, 3, 4]
    for pair in range(5):
        (again,) = [j for j in range(5, 10) if np.array_equal(keys[j], keys[pair])]
        assert chosen[again] == second[pair] != chosen[pair]


def test_state_sizes():
    sizes = {
        name: trained.state_size(trained.Case(name, 16, 1, 64, 16))
        for name in ("softmax_attention", "linear_attention", "delta_rule", "hedgehog")
    }
    assert sizes == {
        "softmax_attention": 2 * 64 * 16,
        "linear_attention": 16 * 17,
        "delta_rule": 16 * 16,
        "hedgehog": 32 * 17,
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("study=nothing", "study: expected any of overwriting, recall"),
        ("mechanisms=no_such", "mechanisms: mechanism: no 'no_such'"),
        ("mechanisms=reversed_attention", "has no causal form"),
        ("tasks=((8,4),)", "length: expected an even number"),
        ("sizes=((6,4),)", "sizes: linear_attention: heads: expected a divisor"),
        ("learning_rates=()", "learning_rates: expected at least one"),
    ],
)
def test_bad_settings_are_refused_in_a_line(tmp_path, capsys, setting, message):
    assert run(tmp_path, "--config.study=overwriting", f"--config.{setting}") == 2
    assert message in capsys.readouterr().err


def test_presets():
    assert get_config("paper").tasks[-1] == (512, 64)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
