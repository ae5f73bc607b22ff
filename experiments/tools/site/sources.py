"""What Sphinx reads: the pages of docs/ with their links turned, notebooks, and generated pages."""

import json
import re
import shutil
from pathlib import Path

import nbformat

from experiments.tools import docs, package

ROOT = docs.ROOT
# On the site each mechanism has a page of its own in the place of this one.
NOT_SHOWN = ("mechanisms.md",)
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(#[\w-]+)?\)")
COLAB = "https://colab.research.google.com"


def turned(text: str, page: str) -> str:
    """A page with its links for the site: files of the repository are at its address.

    Args:
        text: Markdown.
        page: where it is below docs/, e.g. `"masks.md"`.

    Example:
        >>> turned("[x](mechanisms.md#retention), [y](masks.md)", "linen.md")
        '[x](mechanisms/retention.md), [y](masks.md)'
    """
    folder = (ROOT / "docs" / page).parent

    def of(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        path = (folder / target).resolve()
        up = "../" * page.count("/")
        if path == docs.PAGE:
            return f"]({up}mechanisms/{anchor.removeprefix('#') or 'index'}.md)"
        if path.is_relative_to(ROOT / "docs") or not path.is_relative_to(ROOT):
            return match[0]
        kind = "tree" if path.is_dir() else "blob"
        return f"]({package.repository()}/{kind}/main/{path.relative_to(ROOT)}{anchor})"

    return LINK.sub(of, text)


def colab_badge(notebook: str) -> str:
    """A link that opens a notebook in Colab, in Markdown; of GitHub's addresses only."""
    found = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(\.git)?", package.repository())
    if found is None:
        return ""
    address = f"{COLAB}/github/{found[1]}/blob/main/colab/{notebook}.ipynb"
    return f'<a class="jattn-colab" href="{address}">Open in Colab</a>'


def write_docs(folder: Path) -> None:
    """Copies the pages of docs/ and their pictures."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = str(path.relative_to(ROOT / "docs"))
        if name not in NOT_SHOWN:
            write(folder / name, turned(path.read_text(), name))
    shutil.copytree(ROOT / "docs" / "figures", folder / "figures", dirs_exist_ok=True)


def write_notebooks(folder: Path, *, execute: bool) -> list[str]:
    """Writes the notebooks, each with a badge, and run where asked for; returns their names."""
    names = []
    for path in docs.NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        if execute:
            from nbclient import NotebookClient

            where = {"metadata": {"path": str(ROOT)}}
            NotebookClient(notebook, timeout=900, resources=where).execute()
        badge = nbformat.v4.new_markdown_cell(colab_badge(path.stem))
        badge["id"] = "badge"
        if badge.source:
            notebook.cells.insert(1, badge)
        notebook.metadata.setdefault("kernelspec", {"name": "python3", "display_name": "Python 3"})
        write(folder / "notebooks" / path.name, json.dumps(notebook, indent=1))
        names.append(path.stem)
    return names


def write(path: Path, text: str) -> None:
    """Writes a page where it is new or has changed, so that Sphinx leaves the others alone."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
