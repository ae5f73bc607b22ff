"""The gallery: claims of several runs in one table, with filters, intervals, scales and figures."""

import json
import re

import matplotlib.pyplot as plt
import pytest

from jattn.training import Claim, Run, write_gallery
from jattn.training.report import write_report

PAPER = "arXiv 0000.00000 (Of slopes)"
CLAIMS = [
    Claim("slope", "S.", PAPER, 0.5, 0.52, "~=", 0.05, seeds=[0.51, 0.53], figure="line",
          scale="steps 10 (paper 1000)"),
    Claim("loss", "L.", "derived, in the setting of arXiv 1111.11111", 1.0, 2.0, "<="),
    Claim("open", "O.", PAPER, 1.0, 0.9, "<=", interval=(0.8, 1.1), note="few seeds"),
    Claim("same", "I.", "by hand", 1.0, 1.0, "~=", kind="identity"),
]  # fmt: skip


@pytest.fixture
def gallery(tmp_path):
    with Run.open(tmp_path / "toy", {}, name="toy", command="python -m toy --it=1") as run:
        figure, _ = plt.subplots()
        run.save_figure(figure, "line", "A line.")
        report = write_report(run, CLAIMS).read_text()
        (tmp_path / "toy" / "claims.json").write_text(json.dumps([c.entry() for c in CLAIMS]))
    old = {"id": "old", "statement": "Of before.", "source": PAPER, "predicted": 1.0,
           "measured": 3.0, "relation": "<=", "tolerance": None, "holds": False,
           "seeds": [3.0], "seeds_holding": 0}  # fmt: skip
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "claims.json").write_text(json.dumps([old]))
    write_gallery(tmp_path / "index.html", {"toy": tmp_path / "toy", "before": tmp_path / "before"})
    return (tmp_path / "index.html").read_text(), report


def test_each_claim_is_a_row_that_filters_can_choose(gallery):
    page, _ = gallery
    rows = re.findall(r'data-verdict="(\w+)" data-kind="(\w+)" data-paper="([^"]*)"', page)
    assert rows == [
        ("holds", "paper", "0000.00000"),
        ("fails", "derived", "1111.11111"),
        ("inconclusive", "paper", "0000.00000"),
        ("holds", "identity", "other"),
        ("fails", "paper", "0000.00000"),
    ]
    for name, wanted in (("verdict", 3), ("kind", 4), ("paper", 3)):
        options = re.search(rf'<select name="{name}">(.*?)</select>', page)
        assert options is not None
        assert options[1].count("<option") == wanted + 1
    assert "1 of 4 claims hold, 1 inconclusive; 1 of 1 identities hold" in page


def test_rows_show_interval_and_scale_and_lead_to_figure_and_command(gallery):
    page, report = gallery
    row = page[page.index('data-verdict="holds"') : page.index('data-verdict="fails"')]
    for part in ("0.51 to 0.53", "2 seeds", "steps 10 (paper 1000)", "toy/report.html#figure-line"):
        assert part in row
    assert 'id="figure-line"' in report
    assert "python -m toy --it=1" in report
    assert "few seeds" in page


def test_without_claims_there_is_no_table(tmp_path):
    with Run.open(tmp_path / "toy", {}, name="toy"):
        pass
    write_gallery(tmp_path / "index.html", {"toy": tmp_path / "toy"})
    assert "Not finished" in (tmp_path / "index.html").read_text()
    assert "<select" not in (tmp_path / "index.html").read_text()
