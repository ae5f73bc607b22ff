"""The report of a run, one self-contained page, and the gallery of several runs."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jattn.training.claims import Claim, expectation, show
from jattn.training.run import Run, write_atomically

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.7rem 0.4rem 0;
         border-bottom: 1px solid #ddd; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.yes { color: #116329; } .no { color: #a40e26; font-weight: bold; }
.quiet { color: #666; font-size: 0.9em; }
figure { margin: 2rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #444; }
pre { background: #f6f6f6; padding: 0.8rem; overflow-x: auto; font-size: 0.85rem; }
"""


def write_report(run: Run, claims: Sequence[Claim], description: str = "") -> Path:
    """Writes `report.html`: the claims, the figures with their captions, and the config.

    Args:
        run: the run, finished.
        claims: what it found.
        description: a paragraph on the experiment.

    Returns:
        The file. It needs no other: figures are inside it.
    """
    figures = "".join(
        f'<figure><img alt="{escape(name)}" src="{_data_uri(_figure(run.workdir, name))}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for name, caption in run.figures.items()
    )
    rows = "".join(_claim_row(claim) for claim in claims)
    body = (
        f"<h1>{escape(run.name)}</h1>{_paragraphs(description)}"
        f"<h2>Claims</h2><p>{_summary([claim.holds for claim in claims])}</p>"
        "<table><thead><tr><th>claim</th><th>statement</th><th>expected</th><th>measured</th>"
        f"<th>holds</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<h2>Figures</h2>{figures or '<p>None.</p>'}"
        f"<h2>Config</h2><pre>{escape(json.dumps(run.config, indent=2))}</pre>"
    )
    path = run.workdir / "report.html"
    write_atomically(path, _page(run.name, body))
    return path


def write_gallery(path: str | os.PathLike, runs: Mapping[str, str | os.PathLike]) -> None:
    """Writes a page that shows several finished runs: what holds, and the first figure of each.

    Args:
        path: the page, e.g. `"runs/index.html"`. It links to the runs' reports relatively.
        runs: workdirs by title. One without `claims.json` is shown as not finished.
    """
    path = Path(path)
    sections = []
    for title, workdir in runs.items():
        workdir = Path(workdir)
        claims: list[dict[str, Any]] | None = None
        if (workdir / "claims.json").exists():
            claims = json.loads((workdir / "claims.json").read_text())
        if claims is None:
            sections.append(f'<h2>{escape(title)}</h2><p class="no">Not finished.</p>')
            continue
        link = escape(os.path.relpath(workdir / "report.html", path.parent), quote=True)
        pictures = sorted((workdir / "figures").glob("*.png"))[:1]
        figure = "".join(
            f'<figure><a href="{link}"><img alt="{escape(p.stem)}" src="{_data_uri(p)}"></a>'
            "</figure>"
            for p in pictures
        )
        failing = "".join(
            f'<li class="no">{escape(claim["id"])}: {escape(claim["statement"])}</li>'
            for claim in claims
            if not claim["holds"]
        )
        sections.append(
            f'<h2><a href="{link}">{escape(title)}</a></h2>'
            f"<p>{_summary([claim['holds'] for claim in claims])}</p>"
            f"{f'<ul>{failing}</ul>' if failing else ''}{figure}"
        )
    write_atomically(path, _page("Experiments", "<h1>Experiments</h1>" + "".join(sections)))


def _claim_row(claim: Claim) -> str:
    note = f'<br><span class="quiet">{escape(claim.note)}</span>' if claim.note else ""
    verdict = '<span class="yes">yes</span>' if claim.holds else '<span class="no">NO</span>'
    return (
        f"<tr><td>{escape(claim.id)}</td><td>{escape(claim.statement)}<br>"
        f'<span class="quiet">{escape(claim.source)}</span>{note}</td>'
        f'<td class="number">{escape(expectation(claim))}</td>'
        f'<td class="number">{escape(show(claim.measured))}</td><td>{verdict}</td></tr>'
    )


def _summary(holds: Sequence[bool]) -> str:
    kind = "yes" if all(holds) else "no"
    return f'<span class="{kind}">{sum(holds)} of {len(holds)} claims hold.</span>'


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.strip().split("\n\n") if part)


def _figure(workdir: Path, name: str) -> Path:
    return workdir / "figures" / f"{name}.png"


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _page(title: str, body: str) -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    ).encode()
