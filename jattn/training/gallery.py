"""The gallery of several runs: their claims in one table with filters, and a figure each."""

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jattn.training.claims import KINDS, expectation_of, show, summary, upgraded
from jattn.training.files import write_atomically
from jattn.training.provenance import read
from jattn.training.report import (
    ARXIV,
    captions_of,
    counted,
    data_uri,
    figure_anchor,
    figure_of,
    interval_text,
    linked,
    page,
    verdict_mark,
)
from jattn.training.stores import Folder, folder_of, scheme_of
from jattn.training.verdicts import VERDICTS

# Without scripts the whole table is shown, and the filters are not.
_SCRIPT = """
const filters = document.getElementById("filters");
const rows = [...document.querySelectorAll("tr.claim")];
const chosen = () => [...filters.querySelectorAll("select")].filter(s => s.value);
const choose = () => {
  let shown = 0;
  for (const row of rows) {
    row.hidden = !chosen().every(s => row.dataset[s.name].split(" ").includes(s.value));
    shown += !row.hidden;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} claims shown`;
};
filters.addEventListener("change", choose); filters.hidden = false; choose();
"""
_OTHER = "other"  # papers without an arXiv id


def write_gallery(path: str | os.PathLike, runs: Mapping[str, str | os.PathLike]) -> None:
    """Writes a page that shows several finished runs: what holds, and the first figure of each.

    The first is the one that the experiment saved first, with its caption. All claims stand in one
    table that can be filtered by paper, verdict and kind; each links to its figure, beside which
    the report has the command.

    Args:
        path: the page, e.g. `"runs/index.html"`. It links to the runs' reports relatively.
        runs: workdirs by title. One without `claims.json` is shown as not finished.
    """
    path = folder_of(path)
    sections, rows, everything = [], [], []
    for title, workdir in runs.items():
        workdir = folder_of(workdir)
        try:
            claims = read_claims(workdir)
        except (OSError, ValueError) as error:
            why = "Not finished." if isinstance(error, OSError) else "Its claims.json is damaged."
            sections.append(f'<h2>{escape(title)}</h2><p class="no">{why}</p>')
            continue
        everything += claims
        link = escape(_link(workdir / "report.html", path.parent), quote=True)
        rows += [_row(title, link, claim) for claim in claims]
        sessions = read(workdir)
        command = sessions[-1]["command"] if sessions else None
        when = f"{sessions[-1]['started'][:10]}, {sessions[-1]['device']}" if sessions else ""
        sections.append(
            f'<h2 id="{escape(title)}"><a href="{link}">{escape(title)}</a></h2>'
            f'<p>{counted(claims)} <span class="quiet">{escape(when)}</span></p>'
            f"{f'<pre>{escape(command)}</pre>' if command else ''}{_first_figure(workdir, link)}"
        )
    table = _table(everything, rows) if rows else ""
    write_atomically(path, page("Experiments", f"<h1>Experiments</h1>{table}{''.join(sections)}"))


def read_claims(workdir: Folder) -> list[dict[str, Any]]:
    """The claims of a finished run, with all fields of now, whichever version wrote them.

    Raises:
        OSError: it is not finished.
        ValueError: its file is damaged.
    """
    return [upgraded(entry) for entry in json.loads((workdir / "claims.json").read_text())]


def papers_of(claim: Mapping[str, Any]) -> list[str]:
    """The arXiv ids of the papers that a claim is about.

    Example:
        >>> papers_of({"source": "arXiv 1706.03762 (Attention), and arXiv:2001.04451"})
        ['1706.03762', '2001.04451']
    """
    return [found["id"] for found in ARXIV.finditer(claim.get("source", ""))]


def _table(claims: Sequence[dict[str, Any]], rows: Sequence[str]) -> str:
    papers = [*sorted({paper for claim in claims for paper in papers_of(claim)}), _OTHER]
    selects = "".join(
        f'<label>{name} <select name="{name}"><option value="">all</option>'
        + "".join(f"<option>{value}</option>" for value in values)
        + "</select></label> "
        for name, values in (("paper", papers), ("verdict", VERDICTS), ("kind", KINDS))
    )
    kinds = "; ".join(
        f"{kind}: {summary([claim for claim in claims if claim['kind'] == kind])}"
        for kind in KINDS
        if any(claim["kind"] == kind for claim in claims)
    )
    heads = ("verdict", "claim", "statement", "kind", "expected", "measured", "scale")
    return (
        f'<p>{counted(claims)}</p><p class="quiet">{escape(kinds)}</p>'
        f'<p id="filters" hidden>{selects}<span id="shown" class="quiet"></span></p>'
        '<table class="claims"><thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table><script>{_SCRIPT}</script>"
    )


def _row(title: str, link: str, claim: dict[str, Any]) -> str:
    seeds, note = claim["seeds"], claim["note"]
    figure = claim["figure"]
    shown = f'<br><a href="{link}#{figure_anchor(figure)}">figure</a>' if figure else ""
    said = f'<br><span class="quiet">{escape(note)}</span>' if note else ""
    count = "" if seeds["n"] is None else f"<br>{seeds['n']} seeds"
    cells = (
        ("expected", escape(expectation_of(claim))),
        ("measured", f"{escape(show(claim['measured']))}{interval_text(seeds['interval'])}{count}"),
    )
    return (
        f'<tr class="claim" data-verdict="{claim["verdict"]}" data-kind="{claim["kind"]}" '
        f'data-paper="{" ".join(papers_of(claim)) or _OTHER}"><td>{verdict_mark(claim["verdict"])}'
        f'</td><td><a href="{link}">{escape(title)}</a><br>{escape(claim["id"])}{shown}</td>'
        f'<td>{linked(claim["statement"])}<br><span class="quiet">{linked(claim["source"])}</span>'
        f"{said}</td><td>{claim['kind']}</td>"
        + "".join(f'<td class="number" data-name="{name}">{text}</td>' for name, text in cells)
        + f'<td class="quiet" data-name="scale">{escape(claim["scale"])}</td></tr>'
    )


def _first_figure(workdir: Folder, link: str) -> str:
    try:
        captions = json.loads(captions_of(workdir).read_text())
    except (OSError, ValueError):  # of an earlier version
        captions = {path.stem: "" for path in sorted((workdir / "figures").glob("*.png"))}
    for name, caption in captions.items():
        if figure_of(workdir, name).exists():
            picture = f'<img alt="{escape(name)}" src="{data_uri(figure_of(workdir, name))}">'
            return (
                f'<figure><a href="{link}">{picture}</a>'
                f"<figcaption>{linked(caption)}</figcaption></figure>"
            )
    return ""


def _link(target: Folder, folder: Folder) -> str:
    """A relative link, where both are local or in one store."""
    if scheme_of(target) != scheme_of(folder):
        return os.fspath(target)
    return os.path.relpath(target, folder)
