"""What needs real processes: kills, signals, and many processes in one run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jattn.training import cli, supervisor

HERE = Path(__file__).parent
SAME = ("claims.json", "metrics.jsonl", "figures/loss.png", "arrays/offset.npz")


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


@pytest.mark.slow  # the soak's short form, below, kills a run, too
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


# SIGINT is sent each day to the gallery's command, which passes it on.
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signals_save_and_stop(tmp_path, number):
    process = start(tmp_path, "--config.checkpoint_every=100000000", preset="slow")
    metrics = tmp_path / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors == f"{number.name}: saving and stopping; again, to stop at once\n"
    assert output.splitlines()[-1].startswith("stopped, and saved; go on with: ")
    assert output.splitlines()[-1].endswith("--config.checkpoint_every=100000000")
    assert len(list((tmp_path / "checkpoints" / "line").iterdir())) == 1


def test_two_processes_train_as_one(tmp_path, toy):
    flags = ("--config.seeds=3", "--config.steps=20")  # three seeds: the batch is shared
    port = free_port()
    pair = [start(tmp_path / "two", *flags, *joined(port, i), devices=2) for i in range(2)]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert "holds" in outputs[0][0]
    assert "holds" not in outputs[1][0]
    single = ["toy", f"--config={HERE / 'toy_config.py'}", f"--workdir={tmp_path / 'one'}", *flags]
    with pytest.raises(SystemExit, match="0"):
        cli.main(toy.run_experiment, name="toy", argv=single)

    def losses(folder):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]

    assert len(losses("one")) == 4
    np.testing.assert_allclose(losses("two"), losses("one"), atol=1e-5, rtol=1e-5)
    assert len(list((tmp_path / "two").glob("events*"))) == 1


def joined(port, index, count=2, timeout=60):
    address = f"--coordinator_address=localhost:{port}"
    number = (f"--num_processes={count}", f"--process_id={index}")
    return ("--distributed", address, *number, f"--peer_timeout={timeout}")


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_a_process_that_never_comes_is_one_line(tmp_path):
    process = start(tmp_path / "run", *joined(free_port(), 1, timeout=2))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "the other processes did not come within 2 s (--peer_timeout)" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [0, 1])
def test_a_process_whose_peer_hangs_ends_in_time(tmp_path, hangs):
    port, flags = free_port(), ("--config.seeds=3", "--config.checkpoint_every=100000000")
    pair = [
        start(tmp_path / "run", *flags, *joined(port, i, timeout=20), devices=2, preset="slow")
        for i in range(2)
    ]
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0)
    found = ["pgrep", "-P", str(pair[hangs].pid)]
    child = int(subprocess.run(found, capture_output=True, text=True, check=True).stdout)
    os.kill(child, signal.SIGSTOP)
    _, errors = pair[1 - hangs].communicate(timeout=100)
    pair[hangs].kill()
    pair[hangs].communicate()
    assert pair[1 - hangs].returncode == supervisor.LOST
    assert "Start all processes again to go on" in errors.splitlines()[-1]


def test_a_run_goes_on_on_other_devices_with_the_same_losses(tmp_path):
    flags = ("--config.seeds=4", "--config.batch_size=32", "--config.checkpoint_every=700")
    few, many = tmp_path / "few", tmp_path / "many"
    whole = start(few, *flags, "--config.steps=1400")
    half = start(many, *flags, "--config.steps=1400", devices=8)
    kill_when_saved(half, many / "checkpoints" / "line" / "700")
    rest = start(many, *flags, "--config.steps=1400", "--config.parallel.mesh.data=2", devices=4)
    output, errors = rest.communicate(timeout=60)
    assert rest.returncode == 0, errors
    said = [line for line in output.splitlines() if "going on on" in line]
    assert len(said) == 1
    assert "2 cpu device(s) in 1 process(es)" in said[0]
    assert "last time it was 8 cpu device(s)" in said[0]
    whole.communicate(timeout=60)
    found, expected = ((f / "metrics.jsonl").read_text().splitlines() for f in (many, few))
    assert len(found) == len(expected) > 200
    for line, other in zip(map(json.loads, found), map(json.loads, expected), strict=True):
        assert line.keys() == other.keys()
        np.testing.assert_allclose(line.get("loss", 0), other.get("loss", 0), atol=1e-5)


def kill_when_saved(process, checkpoint):
    wait_until(checkpoint.exists)
    process.kill()
    process.communicate()


def test_kills_and_damages_leave_no_trace():
    """The short form of `make soak`, in a process of its own, which forks."""
    command = [sys.executable, "-m", "experiments.tools.soak", "--only=one,damages", "--seed=1"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, "--kills=2", "--damages=12"],
        env=environment, cwd=HERE.parents[1], text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "one process: 2 of 2 kills left no trace" in done.stdout
    counts = r"damages: 12; (\d+) runs ended with the same bits, (\d+) were refused in one line"
    recovered, refused = re.findall(counts, done.stdout)[0]
    assert int(recovered) + int(refused) == 12
