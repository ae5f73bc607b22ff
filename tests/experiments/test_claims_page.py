"""The page of the language model's claims: written from runs, and read back for verdicts."""

import json

from experiments.tools import claims_page, method_docs
from jattn.lens import methods


def claim(id, holds, source="arXiv 2505.11739 (ZeroTuning: ...)"):
    return dict(
        id=id, statement="One | two.", source=source, predicted=0.5, measured=1 / 3, relation="<",
        tolerance=None, holds=holds,
    )  # fmt: skip


def run_of(folder, experiment, claims):
    folder.mkdir()
    (folder / "claims.json").write_text(json.dumps(claims))
    (folder / "config.json").write_text(json.dumps({"experiment": experiment}))
    return str(folder)


def test_sections_are_written_read_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(claims_page, "PAGE", tmp_path / "page.md")
    one = run_of(tmp_path / "one", "language_model_sinks", [claim("a", True), claim("b", False)])
    two = run_of(tmp_path / "two", "language_model_heads", [claim("c", True)])
    assert claims_page.main([one]) == 0
    assert claims_page.main([two]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "1 of 2 claims hold." in text
    assert "| `b` | One / two. |" in text
    assert "| < 0.5 | 0.3333 | **no** |" in text
    found = claims_page.rows(text)
    assert [(row.claim, row.holds) for row in found] == [("c", True), ("a", True), ("b", False)]
    # Written again it is the same, whatever came before.
    assert claims_page.page(claims_page.sections(text)) == text
    verdict = method_docs.verdict(methods.info("zero_tuning"), found)
    assert verdict == "2 of 3 (heads, sinks)"
    assert method_docs.verdict(methods.info("lofit_edit"), found) == ""


def test_a_folder_without_claims_is_one_line(tmp_path, capsys):
    assert claims_page.main([str(tmp_path)]) == 2
    assert "expected the workdir of a finished run" in capsys.readouterr().err


def test_members_of_the_survey_exist():
    table = method_docs.survey()
    for column in ("use", "interpretation", "mitigation"):
        assert f"| {column} | " in table
    assert "[`sigmoid_attention`](../jattn/mechanisms/softmax/sigmoid_attention.py)" in table
