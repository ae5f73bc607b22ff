"""The report of a run, one self-contained page, and the gallery of several runs."""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jattn.training.claims import Claim, expectation, show, summary
from jattn.training.files import write_atomically
from jattn.training.provenance import read
from jattn.training.run import Run
from jattn.training.stores import Folder, folder_of, scheme_of

_STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --quiet: #5c5c5c; --line: #ddd;
        --block: #f4f4f4; --yes: #116329; --no: #a40e26; --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #16181b; --quiet: #a5a5a5; --line: #3a3d42; --block: #22252a;
          --yes: #6fd08c; --no: #ff8a8a; --link: #8ab8ff; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; } a { color: var(--link); }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.7rem 0.4rem 0;
         border-bottom: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.yes { color: var(--yes); font-weight: bold; } .no { color: var(--no); font-weight: bold; }
.quiet { color: var(--quiet); font-size: 0.9em; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; }
figcaption { color: var(--quiet); }
pre { background: var(--block); padding: 0.8rem; overflow-x: auto; font-size: 0.85rem; }
.provenance th { font-weight: normal; color: var(--quiet); white-space: nowrap; }
@media (max-width: 40rem) {
  table.claims thead { display: none; }
  table.claims tr, table.claims td { display: block; border: 0; padding: 0.1rem 0; }
  table.claims tr { border-bottom: 1px solid var(--line); padding: 0.6rem 0; }
  table.claims td.number { white-space: normal; }
  table.claims td[data-name]::before { content: attr(data-name) " "; color: var(--quiet); }
}
"""
_ARXIV = re.compile(r"(?P<prefix>arXiv[: ]?\s?)(?P<id>\d{4}\.\d{4,5})")


def write_report(run: Run, claims: Sequence[Claim], description: str = "") -> Folder:
    """Writes `report.html`: claims, figures with their captions, where they come from, the config.

    Args:
        run: the run, finished.
        claims: what it found.
        description: a paragraph on the experiment.

    Returns:
        The file. It needs no other: figures are inside it.
    """
    figures = "".join(
        f'<figure><img alt="{escape(name)}" src="{_data_uri(_figure(run.workdir, name))}">'
        f"<figcaption>{_linked(caption)}</figcaption></figure>"
        for name, caption in run.figures.items()
    )
    rows = "".join(_claim_row(claim) for claim in claims)
    captions = json.dumps(run.figures, indent=2) + "\n"
    write_atomically(_captions(run.workdir), captions.encode())  # for the gallery
    body = (
        f"<h1>{escape(run.name)}</h1>{_paragraphs(description)}"
        f"<h2>Claims</h2><p>{_verdict([claim.holds for claim in claims])}</p>"
        '<table class="claims"><thead><tr><th>holds</th><th>claim</th><th>statement</th>'
        f"<th>expected</th><th>measured</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<h2>Figures</h2>{figures or '<p>None.</p>'}"
        f"{_origin(run)}"
        f"<h2>Config</h2><pre>{escape(json.dumps(run.config, indent=2))}</pre>"
    )
    path = run.workdir / "report.html"
    write_atomically(path, _page(run.name, body))
    return path


def write_gallery(path: str | os.PathLike, runs: Mapping[str, str | os.PathLike]) -> None:
    """Writes a page that shows several finished runs: what holds, and the first figure of each.

    The first is the one that the experiment saved first, with its caption.

    Args:
        path: the page, e.g. `"runs/index.html"`. It links to the runs' reports relatively.
        runs: workdirs by title. One without `claims.json` is shown as not finished.
    """
    path = folder_of(path)
    sections = []
    for title, workdir in runs.items():
        workdir = folder_of(workdir)
        try:
            claims: list[dict[str, Any]] = json.loads((workdir / "claims.json").read_text())
        except (OSError, ValueError) as error:
            why = "Not finished." if isinstance(error, OSError) else "Its claims.json is damaged."
            sections.append(f'<h2>{escape(title)}</h2><p class="no">{why}</p>')
            continue
        link = escape(_link(workdir / "report.html", path.parent), quote=True)
        failing = "".join(
            f'<li><span class="no">NO</span> {escape(claim["id"])}: '
            f"{_linked(claim['statement'])}</li>"
            for claim in claims
            if not claim["holds"]
        )
        sections.append(
            f'<h2><a href="{link}">{escape(title)}</a></h2>'
            f"<p>{_verdict([claim['holds'] for claim in claims])} "
            f'<span class="quiet">{escape(_when(workdir))}</span></p>'
            f"{f'<ul>{failing}</ul>' if failing else ''}{_first_figure(workdir, link)}"
        )
    write_atomically(path, _page("Experiments", "<h1>Experiments</h1>" + "".join(sections)))


def _first_figure(workdir: Folder, link: str) -> str:
    try:
        captions = json.loads(_captions(workdir).read_text())
    except (OSError, ValueError):  # of an earlier version
        captions = {path.stem: "" for path in sorted((workdir / "figures").glob("*.png"))}
    for name, caption in captions.items():
        if _figure(workdir, name).exists():
            picture = f'<img alt="{escape(name)}" src="{_data_uri(_figure(workdir, name))}">'
            return (
                f'<figure><a href="{link}">{picture}</a>'
                f"<figcaption>{_linked(caption)}</figcaption></figure>"
            )
    return ""


def _origin(run: Run) -> str:
    """The command that ran, when, how long, which code, and on what."""
    sessions = read(run.workdir)
    if not sessions:
        return ""
    last = sessions[-1]
    seconds = [s["seconds"] for s in sessions if s.get("seconds") is not None]
    unknown = len(sessions) - len(seconds)
    time = f"{sum(seconds):.0f} s"
    if len(sessions) > 1:
        time += f", in {len(sessions)} starts" + (f", {unknown} killed" if unknown else "")
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    rows = {
        "started": ", ".join(dict.fromkeys(s["started"] for s in sessions)),
        "took": time,
        "commit": ", ".join(dict.fromkeys(s["commit"] or "not a checkout" for s in sessions)),
        "versions": versions,
        "device": ", ".join(dict.fromkeys(s["device"] for s in sessions)),
    }
    if last["processes"] > 1:
        rows["processes"] = str(last["processes"])
    table = "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    command = f"<pre>{escape(last['command'])}</pre>" if last["command"] else ""
    return f'<h2>Run</h2>{command}<table class="provenance"><tbody>{table}</tbody></table>'


def _link(page: Folder, folder: Folder) -> str:
    """A relative link, where both are local or in one store."""
    if scheme_of(page) != scheme_of(folder):
        return os.fspath(page)
    return os.path.relpath(page, folder)


def _when(workdir: Folder) -> str:
    sessions = read(workdir)
    return f"{sessions[-1]['started'][:10]}, {sessions[-1]['device']}" if sessions else ""


def _claim_row(claim: Claim) -> str:
    note = f'<br><span class="quiet">{escape(claim.remark)}</span>' if claim.remark else ""
    verdict = '<span class="yes">yes</span>' if claim.holds else '<span class="no">NO</span>'
    return (
        f"<tr><td>{verdict}</td><td>{escape(claim.id)}</td><td>{_linked(claim.statement)}<br>"
        f'<span class="quiet">{_linked(claim.source)}</span>{note}</td>'
        f'<td class="number" data-name="expected">{escape(expectation(claim))}</td>'
        f'<td class="number" data-name="measured">{escape(show(claim.measured))}</td></tr>'
    )


def _verdict(holds: Sequence[bool]) -> str:
    kind = "yes" if all(holds) else "no"
    return f'<span class="{kind}">{summary(holds)}.</span>'


def _paragraphs(text: str) -> str:
    """A docstring as HTML: drawings keep their lines; commands are left out, for one that ran."""
    found = []
    for part in text.strip("\n").split("\n\n"):
        if part.startswith("    ") and part.split()[:2] == ["python", "-m"]:
            continue
        kind = "pre" if part.startswith("    ") else "p"
        found.append(f"<{kind}>{_linked(part)}</{kind}>")
    return "".join(found)


def _linked(text: str) -> str:
    """Escaped text, with links to the papers that it names."""
    return _ARXIV.sub(r'\g<prefix><a href="https://arxiv.org/abs/\g<id>">\g<id></a>', escape(text))


def _captions(workdir: Folder) -> Folder:
    return workdir / "figures" / "captions.json"


def _figure(workdir: Folder, name: str) -> Folder:
    return workdir / "figures" / f"{name}.png"


def _data_uri(path: Folder) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _page(title: str, body: str) -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    ).encode()
