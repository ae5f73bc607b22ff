"""The page of the lens's methods, from their register and the tests."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.tools import claims_page
from jattn import zoo
from jattn.lens import methods
from jattn.lens.methods.method import Method

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"
# Golden cases are named by what they compute, methods by their functions.
GOLDEN = {
    "attention_at": "attention_perturbation",
    "attention_iat": "attention_perturbation",
    "visual_attention_redistribution": "visual_redistribution",
}
KINDS = {
    "maps": "changes maps",
    "edit": "makes an edit",
    "readout": "measures",
    "training": "trains",
}

INTRODUCTION = """# Methods of the lens

Written by `make docs` from `jattn.lens.methods`. Each is a pure function of records, or makes an
edit for `jattn.lens.run`. All pass the [conformance suite](../tests/lens/test_methods.py): maps
stay causal maps whose rows sum to one, an edit under its neutral arguments is the identity, what
is measured is finite and within its bounds; and beside it the oracles of their papers. Golden
cases are outputs of the authors' implementations. Methods that were made for images take any span
of a text in their place.

The last column counts the claims of the paper that hold on a model of 135M parameters, or on small
ones that are trained here; they are in [language_model.md](language_model.md) with their numbers.

| name | paper | what it does | oracles | golden | claims that hold |
|---|---|---|---|---|---|
"""
# Claims of papers without an id are found by the beginning of their titles.
TITLE_LENGTH = 24

SURVEY = """
## What a survey of sinks asks for

A survey of attention sinks (2026) sorts work by what sinks are used for, why they are there, and
what is done about them. Each kind has a working member here:

| | kind | here |
|---|---|---|
"""
# Column of the survey, kind, and members: `module:name`, or a mechanism of the zoo.
TAXONOMY = (
    (
        "use",
        "first tokens stay in a cache of the newest",
        ("jattn.attention.masks:prefix", "jattn.lens.methods.sink_report:sink_report"),
    ),
    ("use", "the sink's weight is tuned", ("jattn.lens.methods.zero_tuning:zero_tuning",)),
    (
        "use",
        "weight on sinks goes to other tokens",
        (
            "jattn.lens.methods.attention_calibration:attention_calibration",
            "jattn.lens.methods.visual_redistribution:visual_redistribution",
        ),
    ),
    (
        "use",
        "tokens are appended to be sinks",
        ("jattn.lens.methods.attention_magnets:redirected",),
    ),
    (
        "use",
        "maps are read without sinks",
        (
            "jattn.lens.methods.content_filter:content_only",
            "jattn.lens.methods.attention_magnets:filtered_heatmap",
        ),
    ),
    (
        "use",
        "heads with sinks are told from those that retrieve",
        (
            "jattn.lens.methods.attention_influence:retrieval_scores",
            "jattn.lens.readouts:sink_rate",
        ),
    ),
    (
        "interpretation",
        "massive channels",
        ("jattn.lens.readouts:massiveness", "jattn.lens.readouts:massive_dims"),
    ),
    (
        "interpretation",
        "birth, lifetime and direction of sinks",
        ("jattn.lens.methods.secondary_sinks:find_sinks",),
    ),
    (
        "interpretation",
        "short values, long keys: a place for nothing",
        ("jattn.lens.methods.sink_report:sink_report",),
    ),
    (
        "interpretation",
        "what is lost without them",
        ("jattn.lens:KeyReweight", "jattn.lens:ablate"),
    ),
    ("mitigation", "a logit that takes weight and gives nothing", ("softmax_attention",)),
    ("mitigation", "weights that need not sum to one", ("sigmoid_attention",)),
    ("mitigation", "gates behind attention", ("gated_attention",)),
    ("mitigation", "softmax of differences", ("differential_attention",)),
    ("mitigation", "states in place of weights", ("gated_delta_rule", "retention")),
)


def golden_cases() -> dict[str, int]:
    """How many golden cases the suite runs of each method."""
    count: dict[str, int] = {}
    folder = ROOT / "tests" / "data" / "golden" / "interventions_and_analysis"
    for path in folder.glob("*.json"):
        given: str = json.loads(path.read_text())["mechanism"]
        name = GOLDEN.get(given, given)
        count[name] = count.get(name, 0) + 1
    return count


def oracles(method: Method) -> str:
    """The test module that imports the method's file, as a link."""
    module = method.function.__module__
    package, _, file = module.rpartition(".")
    imports = (f"from {module} import", f"from {package} import {file}\n")
    for path in sorted((ROOT / "tests" / "lens").glob("test_*.py")):
        text = path.read_text()
        if path.stem != "test_methods" and any(line in text for line in imports):
            return f"[{path.name}](../{path.relative_to(ROOT)})"
    return ""


def verdict(method: Method, claims: Sequence[claims_page.Row]) -> str:
    """How many of a paper's claims hold, and where they were tried."""
    known = method.arxiv or method.title[:TITLE_LENGTH]
    about = [row for row in claims if known in row.source]
    if not about:
        return ""
    where = sorted({row.experiment.removeprefix("language_model_") for row in about})
    return f"{sum(row.holds for row in about)} of {len(about)} ({', '.join(where)})"


def survey() -> str:
    """The table of the survey's kinds; members that do not exist raise an error."""
    lines = []
    for column, kind, members in TAXONOMY:
        links = []
        for member in members:
            module, _, name = member.partition(":")
            if name:
                getattr(importlib.import_module(module), name)
            else:
                name, module = member, zoo.info(member).make.__module__
            links.append(f"[`{name}`](../{_source(module)})")
        lines.append(f"| {column} | {kind} | {', '.join(links)} |\n")
    return SURVEY + "".join(lines)


def _source(module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


def page() -> str:
    """docs/methods.md."""
    golden, lines = golden_cases(), []
    claims = claims_page.rows(claims_page.PAGE.read_text())
    for name in methods.names():
        method = methods.info(name)
        source = _source(method.function.__module__)
        link = f"[{method.arxiv}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else ""
        lines.append(
            f"| [`{name}`](../{source}) | {method.title} {link} | {KINDS[method.kind]} "
            f"| {oracles(method)} | {golden.get(name, '')} | {verdict(method, claims)} |\n"
        )
    return INTRODUCTION + "".join(lines) + survey()
