"""The guides: their programs run from top to bottom."""

import re

import pytest

from experiments.tools import docs

PAGES = ("index.md", *docs.GUIDES)


def program(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))


@pytest.mark.parametrize("name", PAGES)
def test_the_program_of_a_guide_runs(name, monkeypatch):
    from jattn.mechanisms import zoo

    monkeypatch.setattr(zoo, "_REGISTERED", dict(zoo._REGISTERED))
    text = program((docs.ROOT / "docs" / name).read_text())
    assert text
    exec(compile(text, name, "exec"), {"__name__": name.removesuffix(".md")})
