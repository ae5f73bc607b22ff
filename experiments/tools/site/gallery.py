"""Pages that show others: the notebooks, the gallery of experiments, the guides."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat

from experiments.tools import docs

GALLERY = """# Gallery of experiments

Each experiment trains, checks the claims of its papers one by one, and writes a report with its
figures; [the README](../README.md#experiments) lists all of them with their commands. The gallery
is one page of all that have run: every claim in a table that filters by paper, verdict and kind,
those that failed among them.
"""
FIGURE = """
```{figure} figures/circuits.png
:alt: Two trained heads: key-query circuits are plus and minus a multiple of the identity

Two heads trained on in-context regression from random weights: one command redraws this figure
from He et al. 2025, [2503.12734](https://arxiv.org/abs/2503.12734), and checks what the paper says
about it.
```
"""


def title_of(page: Path) -> str:
    """The heading of a page."""
    lines = page.read_text().splitlines()
    return next(line for line in lines if line.startswith("# ")).removeprefix("# ")


def page(static: Path, runs: Path | None) -> str:
    """The page of the gallery; finished runs, where there are any, are copied and linked."""
    if runs is None:
        how = (
            "\nThis site was built without runs. `make reproduce` makes the gallery in under 3 "
            "minutes of a paper, `make reproduce ONLY=` of all; then `make site RUNS=runs` has it "
            "here.\n"
        )
        return GALLERY + how + FIGURE
    for path in sorted(runs.rglob("*")):
        kept = path.name in ("index.html", "report.html")
        if kept and not path.is_symlink():
            target = static / "gallery" / path.relative_to(runs)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    link = (
        "\n```{raw} html\n"
        '<p><a class="jattn-button" href="_static/gallery/index.html">Open the gallery</a></p>\n'
        '<iframe class="jattn-frame" src="_static/gallery/index.html" title="Gallery"></iframe>\n'
        "```\n"
    )
    return GALLERY + link + FIGURE


def notebooks(names: Sequence[str]) -> str:
    """The page of the notebooks."""
    lines = ["# Notebooks", "", "Each runs on a CPU, and opens in Colab from its page.", ""]
    for name in names:
        cells = nbformat.read(docs.ROOT / "colab" / f"{name}.ipynb", 4).cells
        title = cells[0].source.splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({name}.ipynb)")
    hidden = "\n".join(names)
    return "\n".join(lines) + f"\n\n```{{toctree}}\n:hidden:\n\n{hidden}\n```\n"
