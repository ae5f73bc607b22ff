"""Manifests of finished runs, by the standards CODECHECK and RO-Crate."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from jattn.training.claims import summary
from jattn.training.files import write_atomically
from jattn.training.gallery import read_claims
from jattn.training.provenance import read
from jattn.training.report import captions_of, figure_of
from jattn.training.stores import Folder

FORMATS = ("codecheck", "ro-crate")
SPECIFICATION = "https://codecheck.org.uk/spec/config/1.0/"
CRATE = "https://w3id.org/ro/crate/1.1"
_CITED = re.compile(r"arXiv[: ]\s?(?P<id>\d{4}\.\d{4,5})(?: \((?P<title>[^)]*)\))?")
_FILES = ("claims.json", "provenance.json", "config.json", "report.html")


def export(form: str, workdir: Folder, runs: Mapping[str, Folder]) -> Folder:
    """Writes the manifest of all runs into the folder above them.

    Args:
        form: `"codecheck"`, a `codecheck.yml`; or `"ro-crate"`, an `ro-crate-metadata.json`.
        workdir: where to.
        runs: finished runs by name, folders in it.

    Returns:
        The file.
    """
    if form == "codecheck":
        path = workdir / "codecheck.yml"
        text = yaml.safe_dump(codecheck(workdir, runs), sort_keys=False, allow_unicode=True)
        write_atomically(path, f"---\n{text}".encode())
        return path
    path = workdir / "ro-crate-metadata.json"
    write_atomically(path, (json.dumps(ro_crate(workdir, runs), indent=2) + "\n").encode())
    return path


def codecheck(workdir: Folder, runs: Mapping[str, Folder]) -> dict[str, Any]:
    """The fields of a `codecheck.yml`: what was checked, and the files in which to see it."""
    papers = _papers(runs)
    manifest = []
    for name, run in runs.items():
        claims = read_claims(run)
        for figure, caption in _figures(run).items():
            shown = [claim["id"] for claim in claims if claim["figure"] == figure]
            comment = f"{name}: {caption}" + (f" Claims: {', '.join(shown)}." if shown else "")
            manifest.append({"file": _inside(workdir, figure_of(run, figure)), "comment": comment})
        comment = f"{name}: {summary(claims)}. {_command(run)}".strip()
        manifest.append({"file": _inside(workdir, run / "claims.json"), "comment": comment})
    sessions = [entry for run in runs.values() for entry in read(run)]
    return {
        "version": SPECIFICATION,
        "paper": {
            "title": "; ".join(title or f"arXiv {id}" for id, title in papers.items()),
            "authors": [{"name": "see the references"}],
            "reference": [f"https://arxiv.org/abs/{id}" for id in papers],
        },
        "manifest": manifest,
        "codechecker": [{"name": "python -m experiments.reproduce"}],
        "summary": summary([claim for run in runs.values() for claim in read_claims(run)]),
        "check_time": max((entry["started"] for entry in sessions), default=None),
    }


def ro_crate(workdir: Folder, runs: Mapping[str, Folder]) -> dict[str, Any]:
    """The JSON-LD of an RO-Crate: a data set of files, the actions that made them, the papers."""
    papers = _papers(runs)
    datasets, entities = [], []
    for name, run in runs.items():
        claims, here = read_claims(run), _inside(workdir, run) + "/"
        files = [file for file in _FILES if (run / file).exists()]
        figures = _figures(run)
        parts = [f"{here}{file}" for file in files] + [f"{here}figures/{f}.png" for f in figures]
        datasets.append({"@id": here})
        entities.append(
            {
                "@id": here,
                "@type": "Dataset",
                "name": name,
                "description": f"{summary(claims)}.",
                "hasPart": [{"@id": part} for part in parts],
                "citation": [{"@id": _address(id)} for id in _papers({name: run})],
            }
        )
        entities += [
            {"@id": f"{here}{file}", "@type": "File", "name": file, "encodingFormat": _kind(file)}
            for file in files
        ]
        entities += [
            {
                "@id": f"{here}figures/{figure}.png",
                "@type": ["File", "ImageObject"],
                "name": figure,
                "description": caption,
                "encodingFormat": "image/png",
            }
            for figure, caption in figures.items()
        ]
        entities += [_action(here, index, entry) for index, entry in enumerate(read(run))]
    articles = [
        {"@id": _address(id), "@type": "ScholarlyArticle", "name": title or f"arXiv {id}"}
        for id, title in papers.items()
    ]
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": CRATE},
        "about": {"@id": "./"},
    }
    software = {"@id": "#jattn", "@type": "SoftwareApplication", "name": "jattn"}
    started = [entry["started"] for run in runs.values() for entry in read(run)]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": "Reproductions of papers on attention",
        "description": "Runs of experiments, with their claims, figures and provenance.",
        "datePublished": max(started, default="")[:10],
        "license": {"@id": "https://spdx.org/licenses/Apache-2.0"},
        "hasPart": datasets,
        "mentions": [
            {"@id": entity["@id"]} for entity in entities if entity["@type"] == "CreateAction"
        ],
    }
    graph = [descriptor, root, software, *entities, *articles]
    return {"@context": f"{CRATE}/context", "@graph": graph}


def _action(here: str, index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    return {
        "@id": f"#{here.strip('/')}-{index + 1}",
        "@type": "CreateAction",
        "name": entry["command"] or "a run from Python",
        "description": f"commit {entry['commit']}; {versions}; {entry['device']}",
        "startTime": entry["started"],
        "instrument": {"@id": "#jattn"},
        "result": {"@id": here},
    }


def _papers(runs: Mapping[str, Folder]) -> dict[str, str]:
    """Titles of the papers whose claims were tested, by arXiv id."""
    found: dict[str, str] = {}
    for run in runs.values():
        for claim in read_claims(run):
            for cited in _CITED.finditer(claim["source"]):
                found[cited["id"]] = found.get(cited["id"]) or cited["title"] or ""
    return dict(sorted(found.items()))


def _figures(run: Folder) -> dict[str, str]:
    """Captions of a run's figures by name."""
    path = captions_of(run)
    return json.loads(path.read_text()) if path.exists() else {}


def _command(run: Folder) -> str:
    sessions = read(run)
    return f"Command: {sessions[-1]['command']}" if sessions and sessions[-1]["command"] else ""


def _address(id: str) -> str:
    return f"https://arxiv.org/abs/{id}"


def _kind(file: str) -> str:
    return "text/html" if file.endswith(".html") else "application/json"


def _inside(workdir: Folder, path: Folder) -> str:
    return str(path).removeprefix(str(workdir)).lstrip("/")
