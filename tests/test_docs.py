"""The pages tell the truth: their tables are the zoo's, their code runs, their files exist."""

import re

import pytest

from experiments.tools import docs

README = docs.README.read_text()


def test_pages_and_pictures_are_current():
    assert docs.stale() == []


def test_what_is_stale_is_named(monkeypatch, tmp_path, capsys):
    page = tmp_path / "mechanisms.md"
    page.write_text(docs.page().replace("Cost: quadratic", "Cost: nothing", 1))
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "PAGE", page)
    monkeypatch.setattr(docs, "PICTURES", tmp_path / "patterns")
    assert docs.main(["--check"]) == 1
    named = capsys.readouterr().err
    assert "mechanisms.md is stale; run `make docs`" in named
    assert "patterns/softmax_attention.png is stale" in named


def test_the_address_has_one_place(monkeypatch):
    monkeypatch.setattr(docs.package, "repository", lambda: "https://example.org/else.git")
    named = docs.stale()
    assert {"README.md", "docs/pods.md"} <= set(named)
    assert {f"colab/{path.name}" for path in docs.NOTEBOOKS} <= set(named)
    line = 'pip install "jattn @ git+https://example.org/else.git"'
    assert line in docs.with_address(README)


def test_code_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block.replace("4096", "256"), "README.md", "exec"), {})


@pytest.mark.parametrize("page", [docs.README, docs.PAGE], ids=lambda page: page.name)
def test_links_and_figures_exist(page):
    targets = re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)", page.read_text())
    assert targets
    for target in targets:
        path = page.parent / target
        assert path.exists(), target
        assert path.is_dir() or path.stat().st_size < 300_000
