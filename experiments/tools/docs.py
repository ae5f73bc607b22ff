"""Writes the README's table of families, docs/mechanisms.md, methods.md and systems.md, pictures.

And the address of the repository, a setting of pyproject.toml, into the README and the notebooks.

python -m experiments.tools.docs            writes the text, and pictures that are missing
python -m experiments.tools.docs --redraw   writes the text and all pictures
python -m experiments.tools.docs --check    exits with 1 if anything is stale
"""

import ast
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jattn
from experiments.tools import method_docs, package, pictures, systems_page
from jattn.mechanisms.mechanism import KINDS, Mechanism

ROOT = Path(__file__).parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "mechanisms.md"
PICTURES = ROOT / "docs" / "figures" / "patterns"
SHEET = ROOT / "docs" / "figures" / "gallery.png"
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
PODS = ROOT / "docs" / "pods.md"
# Pages for users, written by hand, in the order of the site's sidebar.
GUIDES = (
    "five_minutes.md",
    "your_own_data.md",
    "your_own_mechanism.md",
    "look_inside.md",
    "long_context.md",
    "laptop_to_pod.md",
    "how_we_know.md",
)
ADDRESS = re.compile(r"(?<=git\+)https://[^\s\"'\\]+")
BLOCK = re.compile(r"(<!-- mechanisms: .*? -->\n).*?(<!-- end -->)", re.DOTALL)
# Cases of other implementations are named as there; some are of many mechanisms.
ALIASES: dict[str, str | tuple[str, ...]] = {
    "attentive_pooling": (
        *("aim_pooling", "cbam_pooling", "class_attention", "clip_pooling", "coca_pooling"),
        *("cross_attention_pooling", "dolg_pooling", "efficient_probing"),
        *("multiple_instance_pooling", "simpool"),
    ),
    "braincorl": "in_context_weights",
    "channel_attention": (
        *("collaborative_attention", "context_encoding", "convolutional_block_attention"),
        *("efficient_channel_attention", "frequency_channel_attention", "gated_channel_transform"),
        *("gather_excite", "second_order_pooling", "squeeze_excitation", "style_recalibration"),
    ),
    "dual_attention": ("channel_self_attention", "position_attention"),
    "maxim": "multi_axis_gmlp",
    "ninformer_block": "ninformer",
    "oat_pointer": "object_pointer",
    "softplus_attention_reweighted": "reweighted_softplus_attention",
    "decay_linear_attention": "retention",
}

INTRODUCTION = f"""# Mechanisms

Written by `make docs` from the entries in `jattn.zoo` and the tests. Every mechanism passes the
[conformance suite](../tests/mechanisms/test_conformance.py): shapes, types, jit, vmap, causality,
padding, streaming, cost, gradients against differences in float64; `jattn.testing.check_mechanism`
runs it on yours. Gates, pools and pointers have their own. Then there are the oracles:
limits, identities and bounds that its paper states or that follow from its equation. Golden cases
are outputs of the authors' or another trusted implementation.

The pictures show, for {pictures.TOKENS} random tokens of which the second half repeats the first,
at random parameters: of mixers and pools ||dy_i / dx_j||, how much output i (row) depends on token
j (column), each row over its largest, by `jattn.lens.influence`; of gates the factor of each
channel (row) at each token; of pointers the probabilities of each query (row).
"""


def golden_cases() -> dict[str, int]:
    """How many golden cases the suite runs of each mechanism."""
    count: dict[str, int] = {}
    for path in (ROOT / "tests" / "data" / "golden").rglob("*.json"):
        # Cases of the trained model name no mechanism.
        name: str = json.loads(path.read_text()).get("mechanism", "")
        named = ALIASES.get(name, name)
        for one in (named,) if isinstance(named, str) else named:
            count[one] = count.get(one, 0) + 1
    return count


def oracles() -> dict[str, dict[Path, int]]:
    """Test modules that import a mechanism's module or name it, and how many tests they have."""
    found: dict[str, dict[Path, int]] = {name: {} for name in jattn.zoo.names()}
    modules = {name: jattn.zoo.info(name).make.__module__ for name in found}
    for path in sorted((ROOT / "tests" / "mechanisms").rglob("test_*.py")):
        if path.stem in ("test_conformance", "test_zoo"):
            continue
        tree = ast.parse(path.read_text())
        tests = sum(
            isinstance(n, ast.FunctionDef) and n.name.startswith("test_") for n in tree.body
        )
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        imported |= {
            f"{n.module}.{alias.name}"
            for n in ast.walk(tree)
            if isinstance(n, ast.ImportFrom)
            for alias in n.names
        }
        named = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        used = [name for name, module in modules.items() if module in imported or name in named]
        # One that only serves for comparison has tests of its own elsewhere.
        own = [name for name in used if name in path.stem]
        for name in own or used:
            found[name][path] = tests
    return found


def can(mechanism: Mechanism) -> str:
    """The traits that a mechanism has; of one that is no mixer, its kind."""
    if mechanism.kind != "mixer":
        return mechanism.kind
    traits = ("causal", "bidirectional", "cross", "streaming")
    return ", ".join(trait for trait in traits if getattr(mechanism, trait))


def paper(mechanism: Mechanism) -> str:
    """The paper, with a link where there is one."""
    link = f"[{mechanism.arxiv}](https://arxiv.org/abs/{mechanism.arxiv})"
    return f"{mechanism.title} {link}" if mechanism.arxiv else mechanism.title


def mechanism_table() -> str:
    """The README's table of the families of mechanisms, in Markdown."""
    golden, tested = golden_cases(), oracles()
    entries = [jattn.zoo.info(name) for name in jattn.zoo.names()]
    lines = [
        "| family | | kinds | mechanisms, a few of them | oracles | golden |",
        "|---" * 6 + "|",
    ]
    for family in sorted({entry.family for entry in entries}):
        own = [entry for entry in entries if entry.family == family]
        # Those that most is known of.
        known = sorted(own, key=lambda e: (-sum(tested[e.name].values()), e.name))[:5]
        links = ", ".join(f"[{e.name}](docs/mechanisms.md#{e.name})" for e in known)
        kinds = ", ".join(kind for kind in KINDS if any(e.kind == kind for e in own))
        files = {file: count for e in own for file, count in tested[e.name].items()}
        cases = sum(golden.get(e.name, 0) for e in own)
        lines.append(
            f"| {family} | {len(own)} | {kinds} | {links} | {sum(files.values())} | {cases} |"
        )
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/mechanisms.md."""
    golden, tested = golden_cases(), oracles()
    parts, family = [INTRODUCTION], ""
    for name in jattn.zoo.names():
        mechanism = jattn.zoo.info(name)
        if mechanism.family != family:
            family = mechanism.family
            parts.append(f"## {family.capitalize()}\n")
        files = ", ".join(
            f"{count} oracles in [{path.name}](../{path.relative_to(ROOT)})"
            for path, count in tested[name].items()
        )
        cases = golden.get(name, 0)
        checks = [files, f"{cases} golden case{'s' * (cases > 1)}" if cases else ""]
        options = ", ".join(f"`{option}`" for option in jattn.zoo.options(name)) or "none"
        picture = f'<img src="figures/patterns/{name}.png" width="160" align="right" alt="pattern">'
        what = "Can be" if mechanism.kind == "mixer" else "Kind"
        source = Path(*mechanism.make.__module__.split(".")).with_suffix(".py")
        parts.append(
            f"### {name}\n\n"
            f"{picture}\n\n{paper(mechanism)}\n\n    {mechanism.equation}\n\n"
            f"Cost: {mechanism.cost}. {what}: {can(mechanism)}. Options: {options}.\n\n"
            f"Checks: {'; '.join(c for c in checks if c) or 'the conformance suite'}. "
            f"Source: [{source}](../{source}).\n"
        )
    return "\n".join(parts)


def with_address(text: str) -> str:
    """A text with the repository's address in its lines of installation."""
    return ADDRESS.sub(package.repository(), text)


def with_table(text: str) -> str:
    """The README with its table and address written anew."""
    return with_address(BLOCK.sub(lambda match: match[1] + mechanism_table() + match[2], text))


def stale() -> list[str]:
    """What `make docs` would change."""
    wanted = {f"{name}.png" for name in jattn.zoo.names()}
    there = {path.name for path in PICTURES.glob("*.png")}
    pages = (
        (PAGE, page),
        (method_docs.PAGE, method_docs.page),
        (systems_page.PAGE, lambda: systems_page.page(systems_page.kept())),
    )
    addressed = ((path, path.read_text()) for path in (*NOTEBOOKS, PODS))
    return [
        *(str(p.relative_to(ROOT)) for p, text in addressed if text != with_address(text)),
        *(["README.md"] if README.read_text() != with_table(README.read_text()) else []),
        *(
            str(path.relative_to(ROOT))
            for path, make in pages
            if not path.exists() or path.read_text() != make()
        ),
        *([] if SHEET.exists() else [str(SHEET.relative_to(ROOT))]),
        *(str((PICTURES / name).relative_to(ROOT)) for name in sorted(wanted ^ there)),
    ]


def main(argv: Sequence[str]) -> int:
    """The command line; see the module's docstring."""
    if argv == ["--check"]:
        for name in (found := stale()):
            print(f"{name} is stale; run `make docs`", file=sys.stderr)
        return int(bool(found))
    README.write_text(with_table(README.read_text()))
    for path in (*NOTEBOOKS, PODS):
        path.write_text(with_address(path.read_text()))
    PAGE.write_text(page())
    method_docs.PAGE.write_text(method_docs.page())
    systems_page.main([])
    for path in PICTURES.glob("*.png"):
        if path.stem not in jattn.zoo.names():
            path.unlink()
    for name in jattn.zoo.names():
        path = PICTURES / f"{name}.png"
        if "--redraw" in argv or not path.exists():
            pictures.draw(name, path)
    pictures.sheet([PICTURES / f"{name}.png" for name in jattn.zoo.names()], SHEET)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
