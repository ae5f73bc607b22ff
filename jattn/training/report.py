"""The report of a run, one self-contained page."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from jattn.training.claims import SHOWN, Claim, expectation, show, summary
from jattn.training.files import write_atomically
from jattn.training.provenance import read
from jattn.training.run import Run
from jattn.training.stores import Folder
from jattn.training.verdicts import HOLDS

_STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --quiet: #5c5c5c; --line: #ddd;
        --block: #f4f4f4; --yes: #116329; --no: #a40e26; --open: #7a4b00; --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #16181b; --quiet: #a5a5a5; --line: #3a3d42; --block: #22252a;
          --yes: #6fd08c; --no: #ff8a8a; --open: #f0c060; --link: #8ab8ff; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; } a { color: var(--link); }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.7rem 0.4rem 0;
         border-bottom: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.yes { color: var(--yes); font-weight: bold; } .no { color: var(--no); font-weight: bold; }
.open { color: var(--open); font-weight: bold; }
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
ARXIV = re.compile(r"(?P<prefix>arXiv[: ]?\s?)(?P<id>\d{4}\.\d{4,5})")


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
        f'<figure id="{figure_anchor(name)}"><img alt="{escape(name)}" '
        f'src="{data_uri(figure_of(run.workdir, name))}">'
        f"<figcaption>{linked(caption)}</figcaption></figure>"
        for name, caption in run.figures.items()
    )
    rows = "".join(_claim_row(claim) for claim in claims)
    captions = json.dumps(run.figures, indent=2) + "\n"
    write_atomically(captions_of(run.workdir), captions.encode())  # for the gallery
    body = (
        f"<h1>{escape(run.name)}</h1>{_paragraphs(description)}"
        f"<h2>Claims</h2><p>{counted(claims)}</p>"
        '<table class="claims"><thead><tr><th>verdict</th><th>claim</th><th>statement</th>'
        f"<th>kind</th><th>expected</th><th>measured</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<h2>Figures</h2>{figures or '<p>None.</p>'}"
        f"{_origin(run)}"
        f"<h2>Config</h2><pre>{escape(json.dumps(run.config, indent=2))}</pre>"
    )
    path = run.workdir / "report.html"
    write_atomically(path, page(run.name, body))
    return path


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


def _claim_row(claim: Claim) -> str:
    entry = claim.entry()
    said = "; ".join(filter(None, (claim.remark or entry["note"], claim.scale)))
    note = f'<br><span class="quiet">{escape(said)}</span>' if said else ""
    shown = f'<br><a href="#{figure_anchor(claim.figure)}">figure</a>' if claim.figure else ""
    return (
        f"<tr><td>{verdict_mark(claim.verdict)}</td><td>{escape(claim.id)}{shown}</td>"
        f"<td>{linked(claim.statement)}<br>"
        f'<span class="quiet">{linked(claim.source)}</span>{note}</td><td>{claim.kind}</td>'
        f'<td class="number" data-name="expected">{escape(expectation(claim))}</td>'
        f'<td class="number" data-name="measured">{escape(show(claim.measured))}'
        f"{interval_text(claim.interval)}</td></tr>"
    )


def counted(claims: Sequence[Claim | dict[str, Any]]) -> str:
    """How many claims hold, green where all do."""
    verdicts = [c["verdict"] if isinstance(c, dict) else c.verdict for c in claims]
    kind = "yes" if all(verdict == HOLDS for verdict in verdicts) else "no"
    return f'<span class="{kind}">{summary(claims)}.</span>'


def verdict_mark(verdict: str) -> str:
    """A verdict as pages show it.

    Example:
        >>> verdict_mark("holds")
        '<span class="yes">yes</span>'
    """
    text = SHOWN[verdict][0]
    return f'<span class="{text.lower()}">{text}</span>'


def interval_text(interval: Sequence[float | str] | None) -> str:
    """An interval below a number, or nothing."""
    if interval is None:
        return ""
    low, high = (show(float(end)) for end in interval)
    return f'<br><span class="quiet">{low} to {high}</span>'


def figure_anchor(name: str) -> str:
    """Where in a report a figure is found."""
    return "figure-" + escape(name, quote=True)


def _paragraphs(text: str) -> str:
    """A docstring as HTML: drawings keep their lines; commands are left out, for one that ran."""
    found = []
    for part in text.strip("\n").split("\n\n"):
        if part.startswith("    ") and part.split()[:2] == ["python", "-m"]:
            continue
        kind = "pre" if part.startswith("    ") else "p"
        found.append(f"<{kind}>{linked(part)}</{kind}>")
    return "".join(found)


def linked(text: str) -> str:
    """Escaped text, with links to the papers that it names."""
    return ARXIV.sub(r'\g<prefix><a href="https://arxiv.org/abs/\g<id>">\g<id></a>', escape(text))


def captions_of(workdir: Folder) -> Folder:
    """The file with the captions of a run's figures."""
    return workdir / "figures" / "captions.json"


def figure_of(workdir: Folder, name: str) -> Folder:
    """The file of a run's figure."""
    return workdir / "figures" / f"{name}.png"


def data_uri(path: Folder) -> str:
    """A picture as part of a page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def page(title: str, body: str) -> bytes:
    """A whole page in the style of all."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    ).encode()
