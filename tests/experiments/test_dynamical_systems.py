"""The experiment end to end at toy sizes: files, claims, bad settings."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from configs.dynamical_systems import PRESETS, get_config
from experiments.dynamical_systems import model, recall, run_experiment
from jattn.training import Run, UsageError, cli

# One device: tiny steps shared by eight would mostly wait for one another.
TOY = [
    "--config.parallel.mesh.data=1",
    "--config.features.seeds=4",
    "--config.features.scales=(0.1,0.3,3.0)",
    "--config.dim=8",
    "--config.steps=4",
    "--config.batch_size=8",
    "--config.mixer_steps=4",
    "--config.expansions=(2,4)",
    "--config.mixer_expansions=(2,4)",
    "--config.task.test_size=16",
]


def run(workdir, *extra):
    argv = ["prog", f"--workdir={workdir}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="dynamical_systems", argv=argv)
    return stopped.value.code


def test_equivalences_hold(tmp_path):
    assert run(tmp_path, "--config.study=equivalences,features") == 0
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {f"D{n}" for n in range(1, 10)} == {claim["id"].split("-")[0] for claim in claims}
    assert (tmp_path / "figures" / "features_of_softmax.png").stat().st_size > 10_000


@pytest.mark.slow
def test_recall_states_its_claims(tmp_path):
    assert run(tmp_path, "--config.study=recall", "--config.with_mlp=('linear',)") in (0, 3)
    claims = json.loads((tmp_path / "claims.json").read_text())
    mixed = {f"{id}-{n}" for id in ("D11", "D12-linear", "D12-softmax") for n in (2, 4)}
    assert mixed | {"D10"} == {claim["id"] for claim in claims}
    for name in ("recall_over_steps_4", "recall_by_mixer_8", "recall_over_state_8"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


@pytest.mark.slow
def test_every_claim_is_stated_and_the_training_set_may_be_finite(tmp_path):
    full: Any = get_config("full")
    extra = [
        f"--config.mixers={tuple(full.mixers)}",
        f"--config.with_mlp={tuple(full.with_mlp)}",
        "--config.task.train_size=8",
        "--config.learning_rates=(0.001,0.01)",
    ]
    assert run(tmp_path, "--config.study=recall", *extra) in (0, 3)
    claims = json.loads((tmp_path / "claims.json").read_text())
    ids = {claim["id"] for claim in claims}
    several = ("D11", "D12-linear", "D12-softmax", "D12-ssd", "D14")
    blocks = {f"{id}-{n}" for id in several for n in (2, 4)}
    blocks |= {f"{id}-4-mlp" for id in ("D11", "D12-linear", "D12-softmax")}
    assert ids == {"D10", "D13"} | blocks


@pytest.mark.parametrize("mixer", model.MIXERS)
def test_models_are_causal_and_differ_in_the_mixer_only(mixer):
    spec = model.Spec(mixer, 3)
    sizes = dict(vocabulary=20, length=8, dim=8, layers=1)
    params = jax.jit(lambda key: model.init(key, spec, **sizes))(jax.random.key(0))
    config: Any = get_config()
    config.task.update(dict(vocabulary=20, length=8, pairs=2, test_size=3))
    _, batch = recall.sampler(config, 2)
    moved = batch._replace(tokens=batch.tokens.at[:, -1].set(5))  # later than the first query
    logits = jax.jit(model.logits, static_argnums=1)
    before, after = (
        logits(params, spec, each._replace(queries=each.queries * 0 + 4)) for each in (batch, moved)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)
    grads = jax.jit(jax.grad(model.loss), static_argnums=1)(params, spec, batch)
    scalars = jax.tree.leaves(grads["layers"][0].get("scalar", {}))
    used = any(bool(np.abs(leaf).max() > 0) for leaf in scalars)
    assert used == (mixer in ("exp", "softplus", "sigmoid", "ssd"))
    assert ("positions" in params) == (mixer != "ssd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "recall,nothing"}, "study: expected any of"),
        ({"mixers": ("softmax", "lstm")}, "mixers: expected any of"),
        ({"with_mlp": ("qlstm",)}, "with_mlp: expected any of"),
        ({"expansions": (8, 4)}, "expansions: expected rising numbers"),
        ({"learning_rates": ()}, "learning_rates: expected at least one"),
        ({"task": {"pairs": 20}}, "task.length: expected an even number"),
        ({"features": {"scales": (1.0, 3.0)}}, "features.scales: expected 0.1 or less"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, change, message):
    config = get_config()
    config.update({"study": "equivalences", **change})
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)


def test_presets_share_their_fields():
    small = get_config().to_dict()
    for preset in PRESETS:
        assert get_config(preset).to_dict().keys() == small.keys()
    with pytest.raises(ValueError, match="preset: expected one of small, full, paper"):
        get_config("huge")
