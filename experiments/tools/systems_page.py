"""Writes docs/systems.md: systems around a model or a made world, their checks and their claims.

    python -m experiments.tools.systems_page runs/judged_search runs/self_contradiction ...

Claims come from the runs' `claims.json`; sections of other systems stay. `make docs` writes the
table on top anew.
"""

import ast
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.tools import claims_page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "systems.md"
GOLDEN = ROOT / "tests" / "data" / "golden" / "language_model_systems"


class System(NamedTuple):
    """A row of the table.

    Attributes:
        arxiv: its paper.
        sources: files of its algorithm, under `jattn`.
        tests: files of its oracles, under `tests`.
        golden: how the names of its golden cases begin.
    """

    arxiv: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    golden: tuple[str, ...]


_OWN = "systems/test_language_model_systems.py"
_RATES = "systems/test_rates_and_states.py"
SYSTEMS = {
    "self_contradiction": System(
        "2305.15852", ("systems/self_contradiction.py",), (_OWN,), ("chatprotect",)
    ),
    "self_specialization": System(
        "2310.00160", ("systems/self_specialization.py", "tasks/bm25.py"), (_OWN,), ("selfspec",)
    ),
    "self_injection": System(
        "2509.11287",
        ("systems/injection.py", "losses/preference.py"),
        (_OWN,),
        ("apasi", "shared_preference"),
    ),
    "judged_search": System(
        "2510.00568",
        ("systems/judged_search.py", "nn/rollout.py", "losses/policy_gradient.py"),
        (_OWN, "nn/test_rollout.py"),
        ("reseek", "shared_grpo", "shared_gae", "shared_bm25"),
    ),
    "mental_simulation": System(
        "2305.11772",
        ("systems/latent_dynamics.py", "theory/predictivity.py"),
        (_RATES,),
        ("latent_rollout", "pong", "predictivity"),
    ),
    "directed_connectivity": System(
        "2506.08872",
        ("theory/directed_connectivity.py", "theory/autoregression.py"),
        ("theory/test_group_tests.py",),
        ("directed_connectivity", "mvar", "permutation_fdr", "text_homogeneity"),
    ),
    "attention_states": System(
        "2602.07865",
        ("systems/attention_states.py", "theory/semi_markov.py"),
        (_RATES,),
        ("attention_policy", "hsmm"),
    ),
    "agnosia": System("2309.04041", ("systems/agnosia.py",), (_RATES,), ("agnosia", "scene_items")),
}

INTRODUCTION = """# Systems around a model or a made world

Written by `make docs` and `python -m experiments.tools.systems_page WORKDIR...`. These papers have
no attention mechanism of their own: each is an algorithm as pure functions, and an experiment in a
made world whose truth is exact. Checks are oracles, and golden cases of implementations that know
nothing of this one. Claims are those of preset `small`, as holding/failing/inconclusive; below they
stand with their numbers.

| system | paper | algorithm | checks | golden | claims |
|---|---|---|---|---|---|
"""


def question(name: str) -> str:
    """What an experiment asks, or an algorithm is that has none: the docstring's first line."""
    path = ROOT / "experiments" / name / "__init__.py"
    path = path if path.exists() else ROOT / "jattn" / SYSTEMS[name].sources[0]
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].rstrip(".")


def golden_cases(system: System) -> int:
    """How many golden cases of it the suite runs."""
    return sum(path.stem.startswith(system.golden) for path in GOLDEN.glob("*.json"))


def verdicts(section: str) -> str:
    """Counts of a section's marks."""
    marks = Counter(
        line.rstrip(" |\n").rpartition("| ")[2].strip()
        for line in section.splitlines()
        if line.startswith("| `")
    )
    return "/".join(str(marks[mark]) for mark in claims_page.MARKS.values())


def row(name: str, system: System, sections: Mapping[str, str]) -> str:
    """A line of the table."""
    links = lambda folder, files: ", ".join(
        f"[{Path(file).name}](../{folder}/{file})" for file in files
    )
    there = (ROOT / "experiments" / name).is_dir()
    tests = (*system.tests, f"experiments/test_{name}.py") if there else system.tests
    checks = links("tests", tests)
    missing = "not run" if there else "no experiment"
    claims = verdicts(sections[name]) if name in sections else missing
    return (
        f"| `{name}`: {question(name)} | [{system.arxiv}](https://arxiv.org/abs/{system.arxiv}) "
        f"| {links('jattn', system.sources)} | {checks} | {golden_cases(system)} | {claims} |\n"
    )


def page(sections: Mapping[str, str]) -> str:
    """The page, of sections of claims by experiment."""
    lines = (row(name, system, sections) for name, system in SYSTEMS.items())
    bodies = (f"\n## `{name}`\n{sections[name].rstrip()}\n" for name in SYSTEMS if name in sections)
    return INTRODUCTION + "".join(lines) + "".join(bodies)


def kept() -> dict[str, str]:
    """Sections of claims on the page as it is."""
    return claims_page.sections(PAGE.read_text()) if PAGE.exists() else {}


def main(argv: Sequence[str]) -> int:
    """The command line; see the module's docstring."""
    found = kept()
    for folder in map(Path, argv):
        try:
            claims = json.loads((folder / "claims.json").read_text())
            experiment = json.loads((folder / "config.json").read_text())["experiment"]
        except (OSError, ValueError, KeyError) as error:
            print(f"{folder}: expected the workdir of a finished run: {error}", file=sys.stderr)
            return 2
        if experiment not in SYSTEMS:
            known = ", ".join(SYSTEMS)
            print(f"{folder}: expected a run of {known}, got {experiment}", file=sys.stderr)
            return 2
        found[experiment] = claims_page.table(claims)
    PAGE.write_text(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
