"""The experiment end to end at toy sizes: files, claims, bad settings."""

import json
from typing import Any

import numpy as np
import pytest

from configs.memory_models import PRESETS, get_config
from experiments.margins import bar
from experiments.memory_models import ablations, grid, run_experiment
from jattn.training import Run, UsageError, cli

# One device: tiny steps shared by eight would mostly wait for one another.
TOY = [
    "--config.parallel.mesh.data=1",
    "--config.outliers.length=40",
    "--config.outliers.seeds=2",
    "--config.store.rates=(0.1,0.3)",
    "--config.store.ratios=(1.0,)",
    "--config.store.seeds=2",
    "--config.deep.length=60",
    "--config.deep.block=10",
    "--config.deep.tail=20",
    "--config.deep.rates=(0.01,)",
    "--config.deep.seeds=1",
    "--config.forgetting.length=40",
    "--config.forgetting.flip=20",
    "--config.forgetting.tail=10",
    "--config.forgetting.seeds=1",
    "--config.mechanisms=retention,titans_memory:depth=1",
    "--config.dim=4",
    "--config.layers=1",
    "--config.vocabulary=16",
    "--config.recall.length=8",
    "--config.recall.pairs=2",
    "--config.needle.length=8",
    "--config.needle.factors=(1,2)",
    "--config.test_size=8",
    "--config.seeds=2",
    "--config.batch_size=4",
    "--config.steps=2",
    "--config.ablations.dim=4",
    "--config.ablations.layers=1",
    "--config.ablations.text_length=16",
    "--config.ablations.steps=2",
    "--config.ablations.batch_size=2",
    "--config.ablations.test_size=2",
    "--config.grid.steps=2",
    "--config.grid.seeds=2",
    '--config.grid.losses=("l2",)',
]


def run(workdir, *extra):
    argv = ["prog", f"--workdir={workdir}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="memory_models", argv=argv)
    if stopped.value.code in (0, 3):  # as the claims say, and not otherwise
        claims = json.loads((workdir / "claims.json").read_text())
        assert stopped.value.code == (0 if all(claim["holds"] for claim in claims) else 3)
    return stopped.value.code


@pytest.mark.slow
def test_streams_state_their_claims(tmp_path):
    assert run(tmp_path, "--config.study=outliers,store,deep,forgetting") in (0, 3)
    claims = json.loads((tmp_path / "claims.json").read_text())
    kinds = ("huber", "coordinate", "l1", "none", "p3")
    assert {claim["id"] for claim in claims} == {f"outliers-{k}" for k in kinds} | {
        "deep",
        "forgetting",
        "store-norm",
        "store-plain",
        "store-deep",
    }
    by_name = {claim["id"]: claim["measured"] for claim in claims}
    # After one pass some of every value is there, and not all of it.
    assert 0.3 < by_name["store-plain"] < 1
    assert 0.3 < by_name["store-norm"] < 1
    for name in ("errors_by_loss", "stored", "deep_and_linear", "change_of_mind"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_two_models_that_guess_are_not_better_than_each_other():
    guess = 1 / 8
    at_chance = np.array([0.11, 0.13, 0.12, 0.12])
    assert bar(at_chance - 0.05, at_chance, guess) > at_chance.mean()
    good, better = np.array([0.5, 0.6, 0.4, 0.5]), np.array([0.7, 0.7, 0.8, 0.7])
    assert good.mean() < bar(good, better, guess) < better.mean()
    spread = np.hypot(good.std(ddof=1), better.std(ddof=1)) / 2
    np.testing.assert_allclose(bar(good, better, guess), good.mean() + 2 * spread)
    assert bar(good, good + 0.01, guess) > good.mean() + 0.01


@pytest.mark.slow
def test_training_states_its_claims(tmp_path):
    assert run(tmp_path, "--config.study=recall,needles") in (0, 3)
    claims = json.loads((tmp_path / "claims.json").read_text())
    memory = "titans_memory_depth1"
    assert {claim["id"] for claim in claims} == {
        f"recall-{memory}",
        f"needle-{memory}-retention",
    }
    for name in ("recall_over_steps", "accuracy_over_length"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


@pytest.mark.slow
def test_ablations_and_the_grid_state_their_claims(tmp_path, monkeypatch):
    # Of each a few: compiling all takes minutes.
    chosen = {name: ablations.REMOVED[name] for name in ("deep memory", "filters")}
    monkeypatch.setattr(ablations, "REMOVED", chosen)
    names = ("l2", "kl, signed columns")
    monkeypatch.setattr(grid, "RETENTIONS", {name: grid.RETENTIONS[name] for name in names})
    assert run(tmp_path, "--config.study=ablations,grid") in (0, 3)
    claims = [claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())]
    assert claims == ["without-deep-memory", "without-filters", "grid-best", "grid-signed"]
    for name in ("ablations", "grid"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_each_ablation_is_another_model():
    settings: Any = get_config().ablations
    settings.dim = 8
    whole = ablations.ablated(settings, 16, None).parameters
    less = {name: ablations.ablated(settings, 16, name).parameters for name in ablations.REMOVED}
    assert all(count < whole for count in less.values())
    assert less["filters"] == whole - settings.layers * 3 * 4 * settings.dim


def test_verdicts_of_made_ablations_and_grids():
    config: Any = get_config()
    bits = {ablations.FULL: np.array([2.0, 2.1, 2.2])}
    bits |= dict.fromkeys(ablations.REMOVED, bits[ablations.FULL] + 0.1)
    bits["momentum"] = bits[ablations.FULL] + np.array([0.1, -0.1, 0.05])
    bits["filters"] = bits[ablations.FULL] - 0.1
    found = {c.id: c.verdict for c in ablations.claims_of(config.ablations, bits)}
    assert found.pop("without-momentum") == "inconclusive"
    assert found.pop("without-filters") == "fails"
    assert set(found.values()) == {"holds"}
    recall = {cell: np.array([0.12, 0.13, 0.14]) for cell in grid.cells(config)}
    assert [c.verdict for c in grid.claims_of(config, recall)] == ["fails", "fails"]
    recall["l2", "kl, signed columns"] = np.array([0.7, 0.8, 0.9])
    assert [c.verdict for c in grid.claims_of(config, recall)] == ["holds", "holds"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "deep,nothing"}, "study: expected any of"),
        ({"mechanisms": "titans_memory:colour=1"}, "mechanisms: titans_memory:colour=1: .*unknown"),
        ({"mechanisms": "titan_x"}, "mechanisms: titan_x: .*no 'titan_x' in the zoo"),
        ({"mechanisms": "yaad:depth=two"}, "mechanisms: yaad:depth=two: "),
        ({"needle": {"pairs": 16}}, "tasks: length: expected at least 2 x 16 pairs"),
        ({"forgetting": {"forget": (0.0,)}}, "forgetting.forget: expected at least 2"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, change, message):
    config = get_config()
    config.update({"study": "forgetting", **change})
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)


def test_presets_share_their_fields():
    small: Any = get_config().to_dict()
    for preset in PRESETS:
        assert get_config(preset).to_dict().keys() == small.keys()
    with pytest.raises(ValueError, match="preset: expected one of small, full, paper"):
        get_config("huge")
