"""The workdir: whose it is, what is kept in it, and the pages about it."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from configs import pavlovian
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


def test_a_run_of_an_earlier_version_goes_on_under_the_names_of_now(tmp_path):
    with Run.open(tmp_path, {"part": "one", "steps": 1}, name="toy"):
        pass
    before = (tmp_path / "config.json").read_bytes()
    with Run.open(tmp_path, {"study": "one", "steps": 1}, name="toy"):
        pass
    assert (tmp_path / "config.json").read_bytes() == before
    with pytest.raises(UsageError, match=r"\(study was one, now two\)"):
        Run.open(tmp_path, {"study": "two", "steps": 1}, name="toy")


def test_a_run_goes_on_without_the_fields_that_its_config_no_longer_has(tmp_path, monkeypatch):
    settings: dict = pavlovian.get_config().to_dict()
    Run.open(tmp_path, settings | {"gone": {"a": 1}}, name="pavlovian").__exit__(None)
    with pytest.raises(UsageError, match=r"\(gone.a was 1, now absent\)"):
        Run.open(tmp_path, settings, name="pavlovian")
    monkeypatch.setattr(pavlovian, "FORMER", ("gone",), raising=False)
    Run.open(tmp_path, settings, name="pavlovian").__exit__(None)
    with pytest.raises(UsageError, match=r"\(seed was 0, now 1\)"):
        Run.open(tmp_path, settings | {"seed": 1}, name="pavlovian")


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
    (tmp_path / "metrics.check").unlink()
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
    parts = ("a&lt;b", "A &amp; B.", "Loss &lt;falls&gt;.", "rough", "NO", "0 of 1", '"steps"')
    for part in parts:
        assert part in page or part in page.replace("&quot;", '"'), part
    links = re.findall(r'(?:src|href)="(?!data:image/png;base64,)([^"]*)', page)
    assert links == ["https://arxiv.org/abs/0000.00000"]
    assert "<script" not in page

    index = tmp_path / "index.html"
    write_gallery(index, {"One": tmp_path / "one", "Two": tmp_path / "two"})
    text = index.read_text()
    links = {"one/report.html", "https://arxiv.org/abs/0000.00000"}
    assert set(re.findall(r'href="([^"]*)"', text)) == links
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


def test_a_workdir_serves_one_run_at_a_time(tmp_path):
    with Run.open(tmp_path, {}, name="toy") as run:
        with pytest.raises(UsageError, match=r"is in use by process \d+ on .*; wait for it"):
            Run.open(tmp_path, {}, name="toy")
        run.log(0, "line", {"loss": 1.0})
    # A killed process leaves the file, but not the lock.
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n")
    with Run.open(tmp_path, {}, name="toy"):
        pass
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("line", [b'{"step": 1, "na', b"[1]", b'{"step": 1}', b"\xff"])
def test_a_damaged_line_of_metrics_is_named(tmp_path, line):
    with Run.open(tmp_path, {}, name="toy") as run:
        for step in range(3):
            run.log(step, "line", {"loss": 1.0})
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, lines[2], b""]))
    with pytest.raises(UsageError, match=r"metrics.jsonl is damaged: not what metrics.check says"):
        Run.open(tmp_path, {}, name="toy")
    (tmp_path / "metrics.check").unlink()  # as in a run of an earlier version
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"line 2 of .*metrics.jsonl is damaged; delete that line"):
        Run.open(tmp_path, {}, name="toy")
    assert contents(tmp_path) == before


def test_nan_in_a_config_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"config.a.b: expected a number, got \(1.0, nan\)"):
        Run.open(tmp_path, {"a": {"b": (1.0, float("nan"))}}, name="toy")
    assert contents(tmp_path) == {}


# As `--config.FIELD=VALUE` would be; the fields are those of a packaged experiment.
BUILT_IN_CODE = {
    "zero": ("trials", 0, "config.trials: expected at least 1, got 0"),
    "infinite": ("alpha", float("inf"), "config.alpha: expected a finite number, got inf"),
    "half": ("memories", 2.5, "config.memories: expected a whole number, as 256; got 2.5"),
    "empty": ("dims", (), "config.dims: expected at least one number, got none"),
    "words": ("dims", ("a",), "config.dims: expected whole numbers separated by commas, as"),
    "nested": (
        "parallel",
        {"mesh": {"data": -1, "model": 0}},
        "config.parallel.mesh.model: expected at least 1, got 0",
    ),
}


@pytest.mark.parametrize("case", BUILT_IN_CODE)
def test_a_config_built_in_code_is_checked_as_flags_are(tmp_path, case):
    field, value, message = BUILT_IN_CODE[case]
    settings: dict = pavlovian.get_config().to_dict()
    Run.open(tmp_path / "as_it_is", settings, name="pavlovian").__exit__(None)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        Run.open(tmp_path / "changed", settings | {field: value}, name="pavlovian")
    assert not (tmp_path / "changed").exists()
    # Of an experiment with no packaged config nothing is known.
    Run.open(tmp_path / "toy", {"trials": 0}, name="toy").__exit__(None)


def test_the_gallery_shows_the_figure_that_was_named_first(tmp_path):
    with Run.open(tmp_path, {}, name="toy", command="python -m toy --it=1") as run:
        for name in ("second_by_name", "a_later_one"):
            figure, _ = plt.subplots()
            run.save_figure(figure, name, f"See arXiv 0000.00000: {name}.")
        page = write_report(run, [], "Text.\n\n    python -m toy --documented=2\n").read_text()
    assert "python -m toy --it=1" in page
    assert "--documented" not in page
    for part in ("started", "took", "commit", "versions", "device", "prefers-color-scheme"):
        assert part in page, part
    (tmp_path / "claims.json").write_text("[]")
    write_gallery(tmp_path / "index.html", {"One": tmp_path})
    text = (tmp_path / "index.html").read_text()
    assert 'alt="second_by_name"' in text
    assert 'See arXiv <a href="https://arxiv.org/abs/0000.00000">0000.00000</a>: second' in text
    assert "a_later_one" not in text
    (tmp_path / "claims.json").write_text("[")
    write_gallery(tmp_path / "index.html", {"One": tmp_path})
    assert "Its claims.json is damaged." in (tmp_path / "index.html").read_text()
