"""The experiment end to end at toy sizes: files, claims, exit status, resuming, bad settings."""

import json

import numpy as np
import pytest

from configs.in_context_regression import PRESETS, STUDIES, get_config
from experiments.in_context_regression import run_experiment
from jattn.training import Run, UsageError, cli

KEYS = {
    "id",
    "statement",
    "source",
    "predicted",
    "measured",
    "relation",
    "tolerance",
    "holds",
}
TOY = [
    "--config.seeds=2",
    "--config.batch_size=16",
    "--config.length=10",
    "--config.log_every=10",
    "--config.test_size=1000",
    "--config.test_lengths=(10,20)",
    *(
        f"--config.steps.{study}=30"
        for study in (
            "isotropic",
            "heads",
            "length",
            "trajectory",
            "anisotropic",
            "multitask",
            "activation",
        )
    ),
]


def run(workdir, study, *extra):
    argv = ["prog", f"--workdir={workdir}", f"--config.study={study}", *TOY, *extra]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="in_context_regression", argv=argv)
    return stopped.value.code


def test_core_studies_write_everything_and_resume(tmp_path):
    # Thirty steps prove nothing, and the exit status says so.
    assert run(tmp_path, "isotropic,estimators") == 3
    text = (tmp_path / "claims.json").read_text()
    claims = json.loads(text)
    assert all(set(claim) == KEYS for claim in claims)
    ids = [claim["id"] for claim in claims]
    assert len(ids) == len(set(ids))
    assert {"C1", "C8", "C12", "C15", "C16"} <= set(ids)
    # These two need no training.
    assert all(claim["holds"] for claim in claims if claim["id"] in ("C15", "C16"))
    for name in ("circuits", "trajectories", "snapshots", "bayes_ratio", "approximation"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000
    assert "data:image/png;base64," in (tmp_path / "report.html").read_text()
    assert (tmp_path / "metrics.jsonl").exists()
    (tmp_path / "claims.json").unlink()
    assert run(tmp_path, "isotropic,estimators") == 3
    assert (tmp_path / "claims.json").read_text() == text


@pytest.mark.slow
def test_all_studies_cover_every_claim(tmp_path):
    assert run(tmp_path, "all", "--config.compared_heads=(1,4)") == 3
    ids = {
        claim["id"].split("-")[0] for claim in json.loads((tmp_path / "claims.json").read_text())
    }
    # C17 is about a slow drift and is stated for long runs only.
    assert {f"C{n}" for n in range(1, 23)} - ids == {"C17"}


def test_presets_share_their_fields():
    small = get_config().to_dict()
    for preset in PRESETS:
        assert get_config(preset).to_dict().keys() == small.keys()
    with pytest.raises(ValueError, match="preset: expected one of small, full, paper"):
        get_config("huge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "isotropic,nonsense"}, "study: expected any of"),
        ({"optimizer": "adamw"}, "optimizer: expected one of adam, sgd"),
        ({"test_lengths": (20, 30), "study": "isotropic"}, "the trained length 10 must be among"),
        ({"init": "orthogonal"}, "init: expected one of"),
        ({"activations": ("cube",), "study": "activation"}, "activations: expected any of"),
        ({"tasks": ((0, 9),), "study": "multitask"}, "tasks: expected coordinates"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, plain_checks, change, message):
    config = get_config()
    config.update({"length": 10, "seeds": 2, "batch_size": 16, "test_lengths": (10,), **change})
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)


def test_studies_are_all_dispatched():
    from experiments.in_context_regression import ALONE, ON_MAIN_RUN

    assert set(STUDIES) == set(ALONE) | set(ON_MAIN_RUN)


def test_estimator_claims_are_numbers(tmp_path):
    config = get_config()
    config.study, config.test_size = "estimators", 1_000
    with Run.open(tmp_path, config, name="toy") as opened:
        claims = run_experiment(config, opened)
    assert all(np.isfinite(claim.measured) for claim in claims)
