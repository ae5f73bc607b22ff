"""The gallery command: what it lists, and that signals reach the experiment."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments.reproduce import REGISTERED, main

# Where an experiment's notebook has another name than its own.
NOTEBOOKS = {
    "affine_attention": "swap_the_attention",
    "agnosia": "swap_the_attention",
    "associative_recall": "linear_attention",
    "attention_gates": "swap_the_attention",
    "attention_sinks": "swap_the_attention",
    "attention_states": "swap_the_attention",
    "bakeoff": "swap_the_attention",
    "brain_readout": "attentive_probing",
    "curvature": "swap_the_attention",
    "deconstructed_attention": "swap_the_attention",
    "directed_connectivity": "swap_the_attention",
    "factor_graph": "linear_attention",
    "grokking_regimes": "swap_the_attention",
    "hedgehog_conversion": "linear_attention",
    "hierarchical_text": "swap_the_attention",
    "image_mixers": "linear_attention",
    "key_value_heads": "swap_the_attention",
    "longer_sequences": "swap_the_attention",
    "memory_models": "linear_attention",
    "mental_simulation": "swap_the_attention",
    "minimal_transformer": "swap_the_attention",
    "object_binding": "attentive_probing",
    "physiological_video": "attentive_probing",
    "position_bias": "swap_the_attention",
    "self_contradiction": "judged_search",
    "sink_emergence": "swap_the_attention",
    "self_injection": "judged_search",
    "self_specialization": "judged_search",
    "softmax_as_rnn": "linear_attention",
    "sparse_attention": "neighborhood_attention",
    "step_sizes": "swap_the_attention",
    "test_time_regression": "linear_attention",
    "world_model": "linear_attention",
}


def start(*flags, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.reproduce", *flags],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_registered_experiments_exist():
    for name in REGISTERED:
        assert find_spec(f"experiments.{name}") is not None
        assert Path(f"configs/{name}.py").exists()
        family = "lens" if name.startswith("language_model_") else name
        notebook = NOTEBOOKS.get(name, family)
        assert Path(f"colab/{notebook}.ipynb").exists()


def test_help_names_the_experiments(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    output, errors = capsys.readouterr()
    assert (stopped.value.code, errors) == (0, "")
    for word in (*REGISTERED, "--only", "--preset", "--workdir"):
        assert word in output


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_reaches_the_experiment_which_saves(tmp_path, number):
    """From a folder that is no checkout: the configs come from the package."""
    process = start("--only=associative_recall,pavlovian", "--workdir=runs", folder=tmp_path)
    metrics = tmp_path / "runs" / "associative_recall" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not metrics.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    name = signal.Signals(number).name
    assert errors.startswith(f"reproduce: {name}: waiting for the experiment to save\n")
    assert f"{name}: saving and stopping; again, to stop at once\n" in errors
    assert "Traceback" not in errors
    assert "stopped, and saved; go on with: " in output
    assert "== pavlovian" not in output
    assert not (metrics.parent / ".lock").exists()
