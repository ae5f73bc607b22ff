"""The README's table of claims: written from runs, kept, and added up."""

import json

import pytest

from experiments.tools import claim_counts
from jattn.training import Claim

VALUES = ("It is 1.", "arXiv 0000.00000", 1.0)


def run_of(folder, experiment, claims):
    folder.mkdir()
    (folder / "claims.json").write_text(json.dumps([claim.entry() for claim in claims]))
    (folder / "config.json").write_text(json.dumps({"experiment": experiment}))
    session = {"started": "2026-01-02T03:04:05", "device": "1 x cpu", "seconds": 61.4}
    (folder / "provenance.json").write_text(json.dumps([session]))
    return str(folder)


def test_rows_are_written_kept_and_added_up(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(f"Before.\n{claim_counts.BEGIN}\n{claim_counts.END}\nAfter.\n")
    monkeypatch.setattr(claim_counts, "PAGE", page)
    one = [
        Claim("a", *VALUES, 1.0, "~="),
        Claim("b", *VALUES, 2.0, "~="),
        Claim("c", *VALUES, 1.0, "~=", 0.1, interval=(0.5, 1.5)),
        Claim("d", *VALUES, 1.0, "~=", kind="identity"),
    ]
    assert claim_counts.main([run_of(tmp_path / "one", "pavlovian", one)]) == 0
    assert claim_counts.main([run_of(tmp_path / "two", "agnosia", one[:1])]) == 0
    text = page.read_text()
    assert "| `pavlovian` | 1/1/1 | 0/0/0 | 0/0/0 | 1/0/0 | 2026-01-02, 1 x cpu, 61 s |" in text
    assert "| `agnosia` | 1/0/0 |" in text
    assert "| all | 2/1/1 | 0/0/0 | 0/0/0 | 1/0/0 |  |" in text
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert claim_counts.main([]) == 0
    assert page.read_text() == text


@pytest.mark.parametrize("marked", [True, False])
def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys, marked):
    page = tmp_path / "README.md"
    page.write_text(f"{claim_counts.BEGIN}\n{claim_counts.END}" if marked else "")
    monkeypatch.setattr(claim_counts, "PAGE", page)
    assert claim_counts.main([str(tmp_path)]) == 2
    expected = "the workdir of a finished run" if marked else "a table between"
    assert f"expected {expected}" in capsys.readouterr().err
