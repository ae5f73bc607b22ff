"""Flags of the commands that are no experiments: bad input is one line, and exit status 2."""

import importlib

import pytest

from experiments import bench, reproduce
from experiments.tools import tpu_cycles, tune
from experiments.tools.bench_gpu import __main__ as bench_gpu

CASES = {
    "tune, chip": (tune, "--chips=v9", "tune: --chips: no chip 'v9'; there are v"),
    "tune, one of two": (tune, "--chips=v5e,v9", "tune: --chips: no chip 'v9'; there are v"),
    "tune, class": (tune, "--only=512", "tune: --only: no class has 512 in its name; see --help"),
    "tune, word": (tune, "go", "tune: unrecognized arguments: go; see --help"),
    "cycles, chip": (tpu_cycles, "--chips=", "tpu_cycles: --chips: no chip ''; there are v"),
    "cycles, table": (tpu_cycles, "--only=x", "tpu_cycles: --only: no table 'x'; there are flash"),
    "cycles, flag": (tpu_cycles, "--nope", "tpu_cycles: unrecognized arguments: --nope; see"),
    "bench, table": (bench, "--only=attend,x", "bench: --only: no table 'x'; there are attend, "),
    "bench, none": (bench, "--repeats=0", "bench: --repeats: expected a whole number from 1 on, g"),
    "bench, part": (bench, "--repeats=1.5", "bench: --repeats: expected a whole number from 1 on"),
    "gpu, repeats": (bench_gpu, "--repeats=-1", "bench_gpu: --repeats: expected a whole number fr"),
    "gpu, lengths": (bench_gpu, "--lengths=1024,", "bench_gpu: --lengths: expected a whole number"),
    "gpu, dims": (bench_gpu, "--dims=many", "bench_gpu: --dims: expected a whole number from 1"),
    "gpu, flag": (bench_gpu, "--length=1024", "bench_gpu: unrecognized arguments: --length=1024"),
    "gallery": (
        reproduce,
        "--only=nothing",
        "reproduce: --only: no experiment 'nothing'; there are in_context_regression, ",
    ),
    "gallery, preset": (
        reproduce,
        "--preset=huge",
        "reproduce: --preset: expected one of small, full, paper for",
    ),
    "gallery, workdir": (
        reproduce,
        "--workdir=",
        "reproduce: --workdir: expected a folder, got none",
    ),
    "gallery, word": (reproduce, "go", "reproduce: unrecognized arguments: go"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_flags_are_one_line(tmp_path, monkeypatch, capsys, case):
    module, flag, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        module.main([flag])
    assert stopped.value.code == 2
    output, errors = capsys.readouterr()
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert output == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", [tune, tpu_cycles, bench, bench_gpu, reproduce])
def test_help_is_the_docstring_and_the_flags(capsys, module):
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    name = module.__name__.removesuffix(".__main__")
    text = importlib.import_module(name).__doc__ or ""
    assert text.splitlines()[0] in output
    assert f"python -m {name} [flags]" in output
