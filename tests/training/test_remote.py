"""Workdirs in object stores, against emulators: the same files, the same bits, and clear lines."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from experiments import pavlovian
from jattn.training import Interrupted, Parallel, UsageError, cli, stores
from jattn.training import lease as leases
from jattn.training.checkpoints import Checkpoints
from jattn.training.files import write_atomically
from jattn.training.gallery import write_gallery
from jattn.training.lease import Lease
from jattn.training.mirror import Mirror
from jattn.training.stores import folder_of
from tests import stores as emulated

HERE = Path(__file__).parent
ONE = Parallel(mesh={"data": 1, "model": 1})


def files(url):
    """The contents of a remote folder by their names in it."""
    system, inside = fsspec.core.url_to_fs(url)
    return {name.removeprefix(inside + "/"): system.cat_file(name) for name in system.find(inside)}


def run_toy(toy, workdir, *flags):
    arguments = [f"--config={HERE / 'toy_config.py'}", f"--workdir={workdir}", *flags]
    with pytest.raises(SystemExit) as exited:
        cli.main(toy.run_experiment, name="toy", argv=["toy.py", *arguments])
    return exited.value.code


def test_a_run_leaves_in_a_store_what_it_leaves_in_a_folder(
    toy, bucket, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    flag = "--config.parallel.mesh.data=1"
    assert run_toy(toy, tmp_path / "run", flag) == 0
    assert run_toy(toy, f"{bucket}/run", flag) == 0
    found = files(f"{bucket}/run")
    for name in ("claims.json", "metrics.jsonl", "figures/loss.png", "config.json"):
        assert found[name] == (tmp_path / "run" / name).read_bytes(), name
    tops = {name.split("/")[0].split(".out")[0] for name in found}
    assert tops == {path.name.split(".out")[0] for path in (tmp_path / "run").iterdir()}
    assert ".lock" not in found
    assert b"data:image/png" in found["report.html"]
    (events,) = [content for name, content in found.items() if name.startswith("events.out")]
    assert len(events) > 200
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no local folder `gs:`

    finished = {name: found[name] for name in found if name != ".lock"}
    assert run_toy(toy, f"{bucket}/run", flag) == 0  # nothing is computed, nothing changes
    assert files(f"{bucket}/run") == finished
    capsys.readouterr()
    assert run_toy(toy, f"{bucket}/run", flag, "--config.steps=41") == 2
    line = capsys.readouterr().err
    assert f"workdir: {bucket}/run holds a run with another config (steps was 40" in line

    write_gallery(f"{bucket}/index.html", {"Toy": f"{bucket}/run"})
    page = files(bucket)["index.html"].decode()
    assert 'href="run/report.html"' in page
    assert "data:image/png" in page
    write_gallery(tmp_path / "index.html", {"Toy": f"{bucket}/run"})
    assert f'href="{bucket}/run/report.html"' in (tmp_path / "index.html").read_text()


def test_a_stopped_fit_goes_on_in_a_store_with_the_same_bits(train, bucket, tmp_path):
    whole = train(tmp_path / "whole", ONE)
    options = {"checkpoint_every": 10, "steps_per_dispatch": 5}
    with pytest.raises(Interrupted):
        train(f"{bucket}/run", ONE, stop_at=14, **options)
    notes = []
    parts = train(f"{bucket}/run", ONE, notes=notes, **options)
    assert notes == ["line: going on from step 15"]
    np.testing.assert_array_equal(parts.params["w"], whole.params["w"])
    lines = files(f"{bucket}/run")["metrics.jsonl"]
    assert lines == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_an_experiment_ends_in_a_store_with_the_claims_it_has_in_a_folder(bucket, tmp_path):
    for workdir in (tmp_path, f"{bucket}/run"):
        argv = ["prog", f"--workdir={workdir}", "--config.study=identity"]
        with pytest.raises(SystemExit) as exited:
            cli.main(pavlovian.run_experiment, name="pavlovian", argv=argv)
        assert exited.value.code == 0
    claims = files(f"{bucket}/run")["claims.json"]
    assert claims == (tmp_path / "claims.json").read_bytes()
    assert [claim["id"] for claim in json.loads(claims)] == ["P1"]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_in_a_store_with_the_same_bits(tmp_path):
    flags = [f"--config={HERE / 'toy_config.py'}", "--config.steps=3000"]
    flags += ["--config.checkpoint_every=300"]
    command = [sys.executable, "-m", "tests.training.toy_experiment", *flags]
    with emulated.gs_emulator() as (_, settings):
        options = {"env": os.environ | settings, "text": True, "cwd": HERE.parents[1]}
        kept = "import tests.stores as s, fsspec; fs = fsspec.filesystem('gs'); "

        def ask(code):
            asked = [sys.executable, "-c", kept + code]
            return subprocess.run(asked, capture_output=True, check=True, **options).stdout.strip()

        bucket = ask("print(s.new_bucket('gs'))")
        for _ in range(2):
            run = subprocess.Popen([*command, f"--workdir={bucket}/run"], **options)
            before = int(ask(f"print(len(fs.glob('{bucket}/run/checkpoints/line/*')))"))
            for _ in range(100):
                if int(ask(f"print(len(fs.glob('{bucket}/run/checkpoints/line/*')))")) > before:
                    break
            run.kill()
            run.wait()
        done = subprocess.run([*command, f"--workdir={bucket}/run"], capture_output=True, **options)
        assert done.returncode == 0, done.stderr
        whole = subprocess.run([*command, f"--workdir={tmp_path}"], capture_output=True, **options)
        assert whole.returncode == 0, whole.stderr
        for name in ("claims.json", "metrics.jsonl"):
            assert (
                ask(f"print(fs.cat_file('{bucket}/run/{name}').hex())")
                == (tmp_path / name).read_bytes().hex()
            )


def test_a_damaged_checkpoint_in_a_store_is_told_and_the_one_before_is_taken(train, bucket):
    good = train(f"{bucket}/run", ONE, checkpoint_every=10)
    folder = f"{bucket}/run/checkpoints/line"
    system, inside = fsspec.core.url_to_fs(folder)
    for name in system.find(f"{inside}/40/state/d"):
        content = bytearray(system.cat_file(name))
        content[len(content) // 2] ^= 16
        system.pipe_file(name, bytes(content))
    notes = []
    again = train(f"{bucket}/run", ONE, notes=notes, checkpoint_every=10)
    assert any("40 is damaged" in note for note in notes)
    assert notes[-1] == "line: going on from step 30"
    np.testing.assert_array_equal(again.params["w"], good.params["w"])
    assert any(name.startswith("40/") for name in files(folder))


def test_what_was_logged_is_written_before_the_checkpoint_that_covers_it(
    train, bucket, monkeypatch
):
    seen, save = [], Checkpoints.save

    def watched(self, step, *rest):
        seen.append((step, len(files(f"{bucket}/run")["metrics.jsonl"].splitlines())))
        save(self, step, *rest)

    monkeypatch.setattr(Checkpoints, "save", watched)
    train(f"{bucket}/run", ONE, steps=12, log_every=1, checkpoint_every=4)
    assert seen == [(4, 5), (8, 9), (12, 13)]  # and one at the start


def test_only_one_run_works_in_a_remote_folder(bucket, monkeypatch):
    monkeypatch.setattr(leases, "SECONDS_BETWEEN_RENEWALS", 0.1)
    first = Lease(folder_of(bucket) / ".lock")
    with pytest.raises(UsageError, match=rf"{bucket} is in use by process {os.getpid()} on"):
        Lease(folder_of(bucket) / ".lock", note=lambda text: None)
    first.check()
    first.release()
    Lease(folder_of(bucket) / ".lock").release()
    assert files(bucket) == {}


def test_a_lease_that_is_not_renewed_runs_out(bucket, monkeypatch):
    path, notes = folder_of(bucket) / ".lock", []
    write_atomically(path, json.dumps({"holder": "process 7 on far", "token": "x"}).encode())
    monkeypatch.setattr(leases, "SECONDS_BETWEEN_RENEWALS", 0.1)
    monkeypatch.setattr(leases, "SECONDS_OF_A_LEASE", 0.5)
    began = time.monotonic()
    lease = Lease(path, notes.append)
    assert 0.5 <= time.monotonic() - began < 5
    assert len(notes) == 1
    assert "whether process 7 on far still works in it" in notes[0]
    # Another that took it for gone has taken it; the holder finds out.
    write_atomically(path, json.dumps({"holder": "process 8 on far", "token": "y"}).encode())
    for _ in range(100):
        time.sleep(0.05)
        if lease._lost_to:
            break
    with pytest.raises(UsageError, match="was taken over by process 8 on far"):
        lease.check()
    lease.release()
    assert b"process 8" in path.read_bytes()


def test_a_lease_of_a_process_that_ended_here_is_taken_at_once(bucket):
    path = folder_of(bucket) / ".lock"
    ended = subprocess.Popen(["true"])
    ended.wait()
    entry = {"holder": "it", "token": "x", "machine": leases._machine(), "process": ended.pid}
    write_atomically(path, json.dumps(entry).encode())
    began = time.monotonic()
    Lease(path, note=pytest.fail).release()
    assert time.monotonic() - began < 2


def test_a_mirror_takes_only_what_came_whole(bucket):
    remote, notes = folder_of(bucket) / "mirror", []
    mirror = Mirror(remote, notes.append)
    for name in ("1", "2", "3"):
        (mirror.local / name / "deep").mkdir(parents=True)
        (mirror.local / name / "deep" / "file").write_bytes(name.encode() * 5)
    mirror.push()
    mirror.close()
    (remote / "1.json").unlink()  # as a kill in the middle of writing leaves it
    write_atomically(remote / "2" / "deep" / "file", b"2")  # half
    mirror = Mirror(remote, notes.append)
    assert [path.name for path in mirror.local.iterdir()] == ["3"]
    assert (mirror.local / "3" / "deep" / "file").read_bytes() == b"33333"
    assert len(notes) == 1
    assert "mirror/2 is damaged (deep/file has 1 bytes of 5)" in notes[0]
    mirror.push()
    mirror.close()
    assert set(files(f"{bucket}/mirror")) == {"3.json", "3/deep/file"}


def test_a_bucket_that_is_not_there_is_one_clear_line(toy, store, capsys):
    assert run_toy(toy, f"{store}://no-such-bucket/run") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"toy: workdir: {store}://no-such-bucket")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/run", "expected a folder, gs://BUCKET/RUN or s3://BUCKET/RUN, got 'ftp://ho"),
        ("gs://", "expected a folder, gs://BUCKET/RUN"),
        ("gs:///run", "expected a folder, gs://BUCKET/RUN"),
        ("gs:/bucket/run", "expected a folder, gs://BUCKET/RUN"),
    ],
)
def test_urls_that_name_no_store_are_refused(toy, url, message, capsys):
    assert run_toy(toy, url) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_store_whose_package_is_missing_says_which(toy, monkeypatch, capsys):
    monkeypatch.setattr(stores.importlib.util, "find_spec", lambda name: None)
    assert run_toy(toy, "gs://bucket/run") == 2
    assert "gs:// needs gcsfs, which is not installed: pip install 'jattn[gcs]'" in (
        capsys.readouterr().err
    )


ASK = """
import sys
from jattn.training import UsageError, stores
stores.SECONDS_TO_ANSWER = 3.0
for url in sys.argv[1:]:
    try:
        stores.check_answers(stores.folder_of(url))
    except UsageError as error:
        print(error)
"""


def test_stores_that_do_not_answer_are_said_not_to():
    emulated._needed("gcsfs", "s3fs")
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = {
            **emulated.GS,
            **emulated.S3,
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{emulated.free_port()}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", ASK, "gs://dead/run", "s3://silent/run"],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=HERE.parents[1],
        )
    assert time.monotonic() - began < 30
    dead, silence = done.stdout.splitlines()
    assert dead.startswith("workdir: gs://dead ")
    assert silence.startswith("workdir: s3://silent does not answer within 3 s; look at the")
