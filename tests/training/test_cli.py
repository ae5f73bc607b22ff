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
    assert output.splitlines()[-1] == "1 of 1 claims hold"
    names = {path.name.split(".out")[0] for path in tmp_path.iterdir()}
    assert names == {
        "arrays",
        "checkpoints",
        "claims.json",
        "config.json",
        "events",
        "figures",
        "metrics.check",
        "metrics.jsonl",
        "provenance.json",
        "report.html",
        "timings.jsonl",
    }
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 30
    kept = {
        name: (tmp_path / name).read_bytes()
        for name in ("claims.json", "metrics.jsonl", "report.html", "provenance.json")
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


# Every one of these is one line that names the flag, says what was expected, and what came.
BAD_INPUT = {
    "unknown field": (["--config.nope=1"], "--config.nope: the config has no such field"),
    "wrong type": (
        ["--config.steps=many"],
        "--config.steps: expected a whole number, as 40; got 'many'",
    ),
    "unknown preset": ([f"--config={CONFIG}:huge"], "has no preset 'huge'; it has small, wrong"),
    "no config": (
        ["--config=none.py"],
        "--config: expected a file or the name of an experiment, and there is no",
    ),
    "not Python": ([f"--config={__file__}:small"], "has no get_config"),
    "no workdir": (["--workdir="], "--workdir: missing"),
    "field of an earlier version": (["--config.part=line"], "no such field; did you mean study?"),
    "near field": (["--config.seed_s=1"], "no such field; did you mean seeds?"),
    "group of fields": (["--config.parallel=1"], "--config.parallel: expected one of its fields:"),
    "half": (["--config.steps=2.5"], "--config.steps: expected a whole number, as 40; got '2.5'"),
    "no value": (["--config.steps"], "--config.steps: expected a value: --config.steps=40"),
    "empty value": (["--config.steps="], "--config.steps: expected a whole number, as 40; got ''"),
    "empty number": (["--config.rate="], "--config.rate: expected a number, as 0.05; got ''"),
    "zero": (["--config.steps=0"], "--config.steps: expected at least 1, got 0"),
    "negative": (["--config.seeds=-3"], "--config.seeds: expected at least 1, got -3"),
    "negative rate": (["--config.rate=-0.1"], "--config.rate: expected no negative number, got -"),
    "nan": (["--config.rate=nan"], "--config.rate: expected a finite number, got nan"),
    "infinite": (["--config.rate=1e999"], "--config.rate: expected a finite number, got inf"),
    "huge": (["--config.steps=9999999999"], "--config.steps: expected at most 2147483647, got 99"),
    "a batch of 10^9": (["--config.batch_size=1000000000"], "batch_size: 1000000000 examples a st"),
    "2 x 10^9 seeds": (["--config.seeds=2000000000"], "seeds: the state of 2000000000 seeds takes"),
    "words for numbers": (["--config.sizes=a,b"], "--config.sizes: expected whole numbers separat"),
    "halves in a list": (["--config.sizes=1,2.5"], "--config.sizes: expected whole numbers separa"),
    "zero in a list": (["--config.sizes=4,0"], "--config.sizes: expected at least 1, got (4, 0)"),
    "nan in a list": (["--config.scales=1.0,nan"], "--config.scales: expected numbers separated"),
    "infinity in a list": (["--config.scales=1e999"], "--config.scales: expected a finite number"),
    "empty list": (["--config.sizes=()"], "--config.sizes: expected at least one number, got none"),
    "number for a word": (["--config.words=1,2"], "--config.words: expected words separated by co"),
    "not true or false": (["--config.shuffle=7"], "--config.shuffle: expected true or false, as"),
    "broken list": (["--config.words=a b"], "--config.words"),
    "unknown study": (["--config.study=chess"], "study: expected any of line or all, got 'chess'"),
    "unknown flag": (["--nope"], "Unknown command line flag 'nope'"),
    "no number of processes": (["--num_processes=x"], "--num_processes=x: invalid literal"),
    "alone": (["--num_processes=2"], "--num_processes: expected --distributed beside it"),
    "alone, too": (["--process_id=0"], "--process_id: expected --distributed beside it"),
    "half of the address": (
        ["--distributed", "--coordinator_address=localhost:1"],
        "--num_processes: missing; --coordinator_address needs all of",
    ),
    "one too many": (
        ["--distributed", "--coordinator_address=x:1", "--num_processes=2", "--process_id=2"],
        "--process_id: expected from 0 to 1, as --num_processes=2; got 2",
    ),
    "no processes": (
        ["--distributed", "--coordinator_address=x:1", "--num_processes=0", "--process_id=0"],
        "--num_processes=0: 0 is not a positive integer; see --help",
    ),
    "no mesh": (
        ["--config.parallel.mesh.model=0"],
        "--config.parallel.mesh.model: expected at lea",
    ),
    "too many devices": (["--config.parallel.mesh.data=999"], "999 devices; there are"),
    "unknown experiment": (["--config=pavlovan"], "'pavlovan'; did you mean pavlovian?"),
    "empty preset": ([f"--config={CONFIG}x:"], "expected a file or the name of an experiment"),
    "stray word": (["go"], "unexpected argument 'go'"),
    "bad strategy": (["--config.parallel.strategy=x"], "parallel.strategy: expected one of"),
    "bad mesh": (["--config.parallel.mesh.data=5"], "neither seeds=2 nor batch_size=16 divides"),
    "not a folder": ([f"--workdir={__file__}"], "cannot be used"),
    "nowhere to write": (["--workdir=/proc/nowhere"], "workdir: /proc/nowhere cannot be used"),
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
    for part in (
        "A toy experiment",
        "small, wrong, bad, slow",
        "--workdir",
        "Examples:",
        "pmap",
        "study): line",
    ):
        assert part in output
