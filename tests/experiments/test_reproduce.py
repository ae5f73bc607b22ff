"""The gallery command refuses what it does not know, and lists only what exists."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from experiments.reproduce import REGISTERED

# Where an experiment's notebook has another name than its own.
NOTEBOOKS = {"bakeoff": "swap_the_attention"} | dict.fromkeys(
    (
        "associative_recall",
        "hedgehog_conversion",
        "memory_models",
        "softmax_as_rnn",
        "test_time_regression",
    ),
    "linear_attention",
)


def test_registered_experiments_exist():
    for name in REGISTERED:
        assert find_spec(f"experiments.{name}") is not None
        assert Path(f"configs/{name}.py").exists()
        notebook = NOTEBOOKS.get(name, name)
        assert Path(f"colab/{notebook}.ipynb").exists()


def test_unknown_experiment_is_refused(tmp_path):
    command = [sys.executable, "-m", "experiments.reproduce", "--only=nothing"]
    result = subprocess.run(
        [*command, f"--workdir={tmp_path / 'runs'}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "no experiment 'nothing'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
