"""The page of systems: a row each, and claims of their runs."""

import json
from pathlib import Path

from experiments.tools import systems_page
from experiments.tools.claims_page import table

CLAIMS = [
    {"id": name, "statement": "It is.", "source": "arXiv 0000.00000", "relation": ">",
     "predicted": 0.0, "tolerance": None, "measured": 0.5, "holds": verdict == "holds",
     "verdict": verdict, "kind": "paper", "note": "", "seeds": None}
    for name, verdict in (("one", "holds"), ("two", "fails"), ("three", "holds"))
]  # fmt: skip


def test_rows_have_links_that_exist_checks_and_verdicts():
    for name, system in systems_page.SYSTEMS.items():
        files = [*(f"jattn/{file}" for file in system.sources)]
        files += [f"tests/{file}" for file in system.tests]
        for file in files:
            assert Path(file).exists(), file
        assert systems_page.golden_cases(system) > 0
        if Path(f"experiments/{name}").is_dir():
            assert Path(f"tests/experiments/test_{name}.py").exists()
            assert systems_page.question(name).startswith("Asks ")
    text = systems_page.page({"agnosia": table(CLAIMS)})
    line = next(line for line in text.splitlines() if line.startswith("| `agnosia`"))
    assert line.endswith("| 2/1/0 |")
    assert sum(line.startswith("| `") and "arxiv.org" in line for line in text.splitlines()) == 8
    other = next(line for line in text.splitlines() if line.startswith("| `attention_states`"))
    assert other.endswith("| not run |")


def test_it_is_written_from_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(systems_page, "PAGE", tmp_path / "systems.md")
    run = tmp_path / "run"
    run.mkdir()
    assert systems_page.main([str(run)]) == 2
    assert "expected the workdir of a finished run" in capsys.readouterr().err
    (run / "claims.json").write_text(json.dumps(CLAIMS))
    (run / "config.json").write_text(json.dumps({"experiment": "pavlovian"}))
    assert systems_page.main([str(run)]) == 2
    assert "expected a run of self_contradiction" in capsys.readouterr().err
    (run / "config.json").write_text(json.dumps({"experiment": "agnosia"}))
    assert systems_page.main([str(run)]) == 0
    assert systems_page.main([]) == 0  # sections stay
    assert list(systems_page.kept()) == ["agnosia"]
