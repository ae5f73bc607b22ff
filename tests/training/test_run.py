"""The workdir: whose it is, what is kept in it, and the pages about it."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from jattn.training import Claim, Interrupted, Run, UsageError, progress, write_gallery
from jattn.training.report import write_report


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_config_is_refused(tmp_path):
    with Run.open(tmp_path, {"steps": 10, "mesh": {"data": 1}}, name="toy") as run:
        run.log(0, "line", {"loss": 1.0})
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "experiment": "toy",
        "steps": 10,
        "mesh": {"data": 1},
    }
    before = contents(tmp_path)
    changed = {"steps": 10, "mesh": {"data": 2}, "rate": 0.1}
    with pytest.raises(UsageError, match=r"\(mesh.data was 1, now 2; rate was absent, now 0.1\)"):
        Run.open(tmp_path, changed, name="toy")
    with pytest.raises(UsageError, match="experiment was toy, now other"):
        Run.open(tmp_path, {"steps": 10, "mesh": {"data": 1}}, name="other")
    assert contents(tmp_path) == before
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        Run.open(tmp_path, {}, name="toy")
    with pytest.raises(UsageError, match="cannot be used: Not a directory"):
        Run.open(tmp_path / "config.json" / "deeper", {}, name="toy")
    with pytest.raises(UsageError, match="not JSON serializable"):
        Run.open(tmp_path / "new", {"f": print}, name="toy")


def test_bad_input_leaves_a_new_workdir_free(tmp_path):
    def refuse(log):
        with Run.open(tmp_path, {"steps": 1}, name="toy") as run:
            if log:
                run.log(0, "line", {"loss": 1.0})
            raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        refuse(log=False)
    assert contents(tmp_path) == {}
    with pytest.raises(UsageError, match="no"):
        refuse(log=True)
    assert (tmp_path / "config.json").exists()


def test_metrics_are_not_written_twice(tmp_path):
    def log(*steps):
        with Run.open(tmp_path, {}, name="toy") as run:
            for step in steps:
                run.log(step, "line", {"loss": 1 / (step + 1), "bad": float("nan")})
                run.log(step, "line", {"other": 2.0})

    path = tmp_path / "metrics.jsonl"
    log(0, 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])  # as a kill in the middle of a line leaves it
    log(1, 2)
    assert path.read_bytes() == whole
    first = json.loads(whole.splitlines()[0])
    assert first == {"step": 0, "name": "line", "loss": 1.0, "bad": None}
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


def test_cached_computes_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3)}

    with Run.open(tmp_path, {}, name="toy") as run:
        for _ in range(2):
            np.testing.assert_array_equal(run.cached("a", compute)["x"], [0, 1, 2])
        assert len(calls) == 1
        (tmp_path / "arrays" / "a.npz").write_bytes(b"PK\x03\x04 no more")
        np.testing.assert_array_equal(run.cached("a", compute)["x"], [0, 1, 2])
        assert len(calls) == 2
        run.interrupted = True
        with pytest.raises(Interrupted):
            run.cached("b", compute)
    assert [path.name for path in sorted((tmp_path / "arrays").iterdir())] == ["a.npz", "b.npz"]


def test_report_and_gallery_need_no_other_file(tmp_path):
    claims = [Claim("a<b", "A & B.", "arXiv:0000.00000", 1.0, 1.5, "~=", 0.1, note="rough")]
    with Run.open(tmp_path / "one", {"steps": 3}, name="toy") as run:
        figure, axes = plt.subplots()
        axes.plot([0, 1], [1, 0])
        run.save_figure(figure, "loss", "Loss <falls>.")
        page = write_report(run, claims, "First.\n\nSecond.").read_text()
        entries = [claim.entry() for claim in claims]
        (tmp_path / "one" / "claims.json").write_text(json.dumps(entries))
    assert (tmp_path / "one" / "figures" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    for part in ("a&lt;b", "A &amp; B.", "Loss &lt;falls&gt;.", "rough", "NO", "0 of 1", '"steps"'):
        assert part in page or part in page.replace("&quot;", '"'), part
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert "<script" not in page

    index = tmp_path / "index.html"
    write_gallery(index, {"One": tmp_path / "one", "Two": tmp_path / "two"})
    text = index.read_text()
    assert set(re.findall(r'href="([^"]*)"', text)) == {"one/report.html"}
    assert "0 of 1 claims hold" in text
    assert "Not finished" in text


def test_progress_is_lines_off_a_terminal_and_a_bar_on_one(capsys):
    def show(console):
        with progress.progress(console, "line", 3) as advance:
            for loss in (3.0, 2.0, 1.0):
                advance(1, loss)

    show(Console())
    assert capsys.readouterr().out == "line: 3/3, 0 s, 0 s left, loss 1\n"
    show(Console(force_terminal=True, width=100))
    assert "loss 1" in capsys.readouterr().out
