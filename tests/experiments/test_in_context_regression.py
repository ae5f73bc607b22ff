"""The experiment end to end at toy sizes: files, claims, exit status, resuming, bad settings."""

import json

import numpy as np
import pytest

from configs.in_context_regression import PRESETS, get_config
from experiments.in_context_regression import printed, run_experiment
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
    "verdict",
    "kind",
    "note",
    "seeds",
    "scale",
    "figure",
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
    assert all(KEYS <= set(claim) <= KEYS | {"seeds_holding"} for claim in claims)
    shown = {claim["id"]: claim for claim in claims}
    values = shown["C1"]["seeds"]["values"]
    assert shown["C1"]["seeds_holding"] == sum(x >= 0.99 for x in values)
    ids = [claim["id"] for claim in claims]
    assert len(ids) == len(set(ids))
    assert {"C1", "C8", "C12", "C15", "C16"} <= set(ids)
    # These two need no training.
    assert all(shown[name]["holds"] for name in ("C15", "C16"))
    assert all(np.isfinite(shown[name]["measured"]) for name in ("C15", "C16"))
    for name in ("circuits", "trajectories", "snapshots", "bayes_ratio", "approximation"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000
    assert "data:image/png;base64," in (tmp_path / "report.html").read_text()
    assert (tmp_path / "metrics.jsonl").exists()
    # As if stopped before the last of what is kept: that is computed again, and nothing else.
    arrays = sorted((tmp_path / "arrays").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in arrays[:-1]}
    arrays[-1].unlink()
    (tmp_path / "claims.json").unlink()
    assert run(tmp_path, "isotropic,estimators") == 3
    assert (tmp_path / "claims.json").read_text() == text
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert times == {path: path.stat().st_mtime_ns for path in arrays[:-1]}
    assert arrays[-1].exists()


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
    config.update({"study": "estimators", "length": 10, "test_lengths": (10,)})
    config.update({"seeds": 2, "batch_size": 16})
    config.update(
        {"steps": dict.fromkeys(get_config().to_dict()["steps"], 2), "test_size": 1_000, **change}
    )
    with Run.open(tmp_path, config, name="toy") as opened, pytest.raises(UsageError, match=message):
        run_experiment(config, opened)


def test_printed_risks_come_out(tmp_path):
    config = get_config()
    config.test_size = 1_000
    with Run.open(tmp_path / "one", config, name="in_context_regression") as open_run:
        assert printed.printed(open_run, config) == []  # one batch has no error
    config.test_size = 8_000
    with Run.open(tmp_path / "more", config, name="in_context_regression") as open_run:
        claims = {claim.id: claim for claim in printed.printed(open_run, config)}
    assert len(claims) == len(printed.PRINTED) == 5
    assert {claim.kind for claim in claims.values()} == {"reference"}
    ridge = [float(risk) for risk in claims["C23-ridge"].note.removeprefix("ours ").split()]
    np.testing.assert_allclose(ridge, printed.PRINTED["ridge"], rtol=0.1)
