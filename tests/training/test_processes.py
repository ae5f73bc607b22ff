"""What needs real processes: kills, signals, and many processes in one run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SAME = ("claims.json", "metrics.jsonl", "report.html", "arrays/offset.npz")


def start(workdir, *flags, devices=1, preset="small"):
    config = f"--config={HERE / 'toy_config.py'}:{preset}"
    command = [sys.executable, HERE / "toy_experiment.py", config, f"--workdir={workdir}", *flags]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(HERE.parent.parent),
    }
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def kill_in_mid_write(process, folder):
    """Kills a process while the folder of an unfinished checkpoint is there."""
    done = {path.name for path in folder.glob("*")}

    def is_writing():
        return any(p.name not in done and "tmp" in p.name for p in folder.glob("*"))

    wait_until(is_writing)
    process.kill()
    process.communicate()


def test_killed_runs_end_with_the_same_bits(tmp_path):
    flags = ("--config.steps=3000", "--config.checkpoint_every=300")
    whole, parts = start(tmp_path / "whole", *flags), tmp_path / "parts"
    for _ in range(2):
        kill_in_mid_write(start(parts, *flags), parts / "checkpoints" / "line")
    last = start(parts, *flags)
    _, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors
    whole.communicate(timeout=60)
    for name in SAME:
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_stop(tmp_path, number):
    process = start(tmp_path, "--config.checkpoint_every=100000000", preset="slow")
    metrics = tmp_path / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-1].startswith("stopped, and saved; go on with: ")
    assert output.splitlines()[-1].endswith("--config.checkpoint_every=100000000")
    assert len(list((tmp_path / "checkpoints" / "line").iterdir())) == 1


def test_two_processes_train_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = ("--config.seeds=3", "--config.steps=20")  # three seeds: the batch is shared
    joined = ("--distributed", f"--coordinator_address=localhost:{port}", "--num_processes=2")
    pair = [
        start(tmp_path / "two", *flags, *joined, f"--process_id={i}", devices=2) for i in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert "holds" in outputs[0][0]
    assert "holds" not in outputs[1][0]
    single = start(tmp_path / "one", *flags, devices=4)
    single.communicate(timeout=60)

    def losses(folder):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]

    assert len(losses("one")) == 4
    np.testing.assert_allclose(losses("two"), losses("one"), atol=1e-5, rtol=1e-5)
    assert len(list((tmp_path / "two").glob("events*"))) == 1
