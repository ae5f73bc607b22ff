"""The table of costs: what is counted, and what it prints."""

import csv
import io

import pytest

from experiments import zoo_table
from jattn import zoo


def test_counts_of_known_mechanisms():
    """A gate of three taps; attention's projections and scores, by hand."""
    rows = {r.name: r for r in zoo.table(["eca", "softmax_attention"], dim=8, heads=2, tokens=16)}
    assert rows["efficient_channel_attention"].parameters == 3
    attention = rows["softmax_attention"]
    assert attention.parameters == 4 * 8 * 8
    products = 4 * 2 * 16 * 8 * 8 + 2 * 2 * 16 * 16 * 8
    assert products <= attention.flops <= 2 * products
    assert (attention.microseconds or 0) > 0
    assert attention.kind == "mixer"
    assert not attention.causal


def test_options_are_taken_and_counted():
    few, many = zoo.table(
        [("efficient_probing", {"queries": 1}), ("efficient_probing", {"queries": 8})],
        dim=8, tokens=16, calls=0,
    )  # fmt: skip
    assert many.parameters - few.parameters == 7 * 8
    assert many.flops > few.flops


def test_a_form_that_there_is_and_wrong_sizes(plain_checks):
    [row] = zoo.table(["retention"], dim=8, heads=2, tokens=8, calls=0)
    assert row.causal
    assert row.microseconds is None
    with pytest.raises(ValueError, match="tokens: expected at least 1, got 0"):
        zoo.table(tokens=0)


def test_printed_written_and_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo_table, "DOCS", tmp_path)
    sizes = ["--dim=8", "--heads=2", "--tokens=8", "--calls=0", "--kind=pointer"]
    assert zoo_table.main([*sizes, "--write", f"--csv={tmp_path / 'own.csv'}"]) == 0
    text = (tmp_path / "zoo_table.csv").read_text()
    assert text == (tmp_path / "own.csv").read_text() == capsys.readouterr().out
    found = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in found] == list(zoo.names(kind="pointer"))
    page = (tmp_path / "zoo_table.md").read_text()
    assert "## Pointers" in page
    assert "`pointer_network`" in page
    with pytest.raises(SystemExit, match="2"):
        zoo_table.main(["--dim=0"])
