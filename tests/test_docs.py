"""The README tells the truth: its table is the zoo's, its code runs, its files exist."""

import re
from pathlib import Path

from experiments import docs

README = docs.README.read_text()


def test_table_is_current():
    assert docs.with_table(README) == README
    assert docs.main(["--check"]) == 0


def test_code_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block.replace("4096", "256"), "README.md", "exec"), {})


def test_links_and_figures_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        path = Path(target)
        assert path.exists(), target
        assert path.is_dir() or path.stat().st_size < 300_000
