"""The command line: flags, messages of one line, and exit statuses."""

import json
from pathlib import Path

import pytest

from jattn.training import cli

CONFIG = str(Path(__file__).parent / "toy_config.py")


@pytest.fixture
def call(toy, capsys):
    """`call(*flags) -> (status, standard output, standard error)`."""

    def run_main(*arguments):
        with pytest.raises(SystemExit) as exited:
            cli.main(toy.run_experiment, name="toy", argv=["toy.py", *arguments])
        return exited.value.code, *capsys.readouterr()

    return run_main


def test_finished_runs(call, tmp_path):
    flags = (f"--workdir={tmp_path}", "--config.parallel.mesh.data=1", "--config.steps=30")
    status, output, errors = call(f"--config={CONFIG}", *flags)
    assert (status, errors) == (0, "")
    assert "The offset is found." in output
    assert str(tmp_path / "report.html") in output
    names = {path.name.split(".out")[0] for path in tmp_path.iterdir()}
    assert names == {
        "arrays",
        "checkpoints",
        "claims.json",
        "config.json",
        "events",
        "figures",
        "metrics.jsonl",
        "report.html",
    }
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 30
    kept = {
        name: (tmp_path / name).read_bytes()
        for name in ("claims.json", "metrics.jsonl", "report.html")
    }
    assert call("--config", CONFIG, *flags)[0] == 0
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}

    status, output, errors = call(f"--config={CONFIG}", *flags, "--config.steps=31")
    assert status == 2
    assert errors.count("\n") == 1
    assert "steps was 30, now 31" in errors


def test_a_claim_that_does_not_hold(call, tmp_path):
    status, output, _ = call(
        f"--config={CONFIG}:wrong", f"--workdir={tmp_path}", "--config.parallel.mesh.data=1"
    )
    assert status == 3
    assert "NO" in output
    assert json.loads((tmp_path / "claims.json").read_text())[0]["holds"] is False


def test_not_finite(call, tmp_path):
    status, _, errors = call(
        f"--config={CONFIG}:bad", f"--workdir={tmp_path}", "--config.parallel.mesh.data=1"
    )
    assert status == 4
    assert errors.startswith("toy: fit line: the loss is not finite at step 1 of seed 0")
    assert errors.count("\n") == 1


BAD_INPUT = {
    "unknown field": (["--config.nope=1"], "--config.nope: the config has no such field"),
    "wrong type": (["--config.steps=many"], "invalid literal for int() with base 10: 'many'"),
    "unknown preset": ([f"--config={CONFIG}:huge"], "has no preset 'huge'; it has small, wrong"),
    "no config": (["--config=none.py"], "there is no file 'none.py'"),
    "not Python": ([f"--config={__file__}:small"], "has no get_config"),
    "no workdir": (["--workdir="], "--workdir: missing"),
    "unknown flag": (["--nope"], "Unknown command line flag 'nope'"),
    "stray word": (["go"], "unexpected argument 'go'"),
    "bad strategy": (["--config.parallel.strategy=x"], "parallel.strategy: expected one of"),
    "bad mesh": (["--config.parallel.mesh.data=5"], "neither seeds=2 nor batch_size=16 divides"),
    "not a folder": ([f"--workdir={__file__}"], "cannot be used"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(call, tmp_path, case):
    flags, message = BAD_INPUT[case]
    status, _, errors = call(f"--config={CONFIG}", f"--workdir={tmp_path}", *flags)
    assert status == 2
    assert errors.startswith("toy: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_help(call):
    status, output, errors = call(f"--config={CONFIG}", "--help")
    assert (status, errors) == (0, "")
    for part in ("A toy experiment", "small, wrong, bad, slow", "--workdir", "Examples:", "pmap"):
        assert part in output
