"""Writes the README's table of mechanisms, docs/mechanisms.md, methods.md and systems.md.

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

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.tools import method_docs, package, systems_page
from jattn.lens.influence import influence
from jattn.mechanisms.mechanism import Mechanism

ROOT = Path(__file__).parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "mechanisms.md"
PICTURES = ROOT / "docs" / "figures" / "patterns"
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
ADDRESS = re.compile(r"(?<=git\+)https://[^\s\"\\]+")
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
TOKENS, DIM, HEADS = 24, 16, 2

INTRODUCTION = f"""# Mechanisms

Written by `make docs` from the entries in `jattn.zoo` and the tests. Every mechanism passes the
[conformance suite](../tests/mechanisms/test_conformance.py): shapes, types, jit, vmap, causality,
padding, streaming, cost, gradients against differences in float64; `jattn.testing.check_mechanism`
runs it on yours. Gates, pools and pointers have their own. Then there are the oracles:
limits, identities and bounds that its paper states or that follow from its equation. Golden cases
are outputs of the authors' or another trusted implementation.

The pictures show ||dy_i / dx_j||, how much output i (row) depends on token j (column), each row
over its largest, of a mixer for {TOKENS} random tokens of which the second half repeats the first,
at random parameters. They are drawn by `jattn.lens.influence`, the same function for all.
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
    """The README's table of all mechanisms, in Markdown."""
    golden, tested = golden_cases(), oracles()
    lines = ["| name | paper | equation | cost | can | oracles | golden |", "|---" * 7 + "|"]
    for name in jattn.zoo.names():
        mechanism = jattn.zoo.info(name)
        equation = mechanism.equation.replace("|", "\\|")  # A bar would end the cell.
        tests = sum(tested[name].values()) or ""
        lines.append(
            f"| [`{name}`](docs/mechanisms.md#{name}) | {paper(mechanism)} | `{equation}` "
            f"| {mechanism.cost} | {can(mechanism)} | {tests} | {golden.get(name, '')} |"
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
        picture = f"{picture}\n\n" if mechanism.kind == "mixer" else ""
        what = "Can be" if mechanism.kind == "mixer" else "Kind"
        source = Path(*mechanism.make.__module__.split(".")).with_suffix(".py")
        parts.append(
            f"### {name}\n\n"
            f"{picture}{paper(mechanism)}\n\n    {mechanism.equation}\n\n"
            f"Cost: {mechanism.cost}. {what}: {can(mechanism)}. Options: {options}.\n\n"
            f"Checks: {'; '.join(c for c in checks if c) or 'the conformance suite'}. "
            f"Source: [{source}](../{source}).\n"
        )
    return "\n".join(parts)


def draw_pattern(name: str, path: Path) -> None:
    """Draws how much a mechanism's outputs depend on its inputs."""
    from matplotlib import colors
    from matplotlib.figure import Figure

    mechanism = jattn.zoo.info(name)
    mixer = jattn.zoo.make(name, dim=DIM, heads=HEADS, causal=mechanism.causal)
    params = mixer.init(jax.random.key(0))
    half = 2 * jax.random.normal(jax.random.key(1), (TOKENS // 2, DIM))
    pattern = influence(
        jax.jit(lambda x: mixer.apply(params, x[None])[0]), jnp.concatenate([half, half])
    )
    largest = pattern.max(1, keepdims=True)
    rows = np.asarray(pattern / jnp.where(largest > 0, largest, 1))
    figure = Figure(figsize=(1.6, 1.6), dpi=100)
    axis = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axis.imshow(rows, cmap="magma_r", norm=colors.PowerNorm(0.5, 0, 1))
    axis.set_xticks([])
    axis.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def with_address(text: str) -> str:
    """A text with the repository's address in its lines of installation."""
    return ADDRESS.sub(package.repository(), text)


def with_table(text: str) -> str:
    """The README with its table and address written anew."""
    return with_address(BLOCK.sub(lambda match: match[1] + mechanism_table() + match[2], text))


def stale() -> list[str]:
    """What `make docs` would change."""
    pictures = {f"{name}.png" for name in jattn.zoo.names(kind="mixer")}
    there = {path.name for path in PICTURES.glob("*.png")}
    pages = (
        (PAGE, page),
        (method_docs.PAGE, method_docs.page),
        (systems_page.PAGE, lambda: systems_page.page(systems_page.kept())),
    )
    others = [path for path in NOTEBOOKS if path.read_text() != with_address(path.read_text())]
    return [
        *(f"colab/{path.name}" for path in others),
        *(["README.md"] if README.read_text() != with_table(README.read_text()) else []),
        *(
            str(path.relative_to(ROOT))
            for path, make in pages
            if not path.exists() or path.read_text() != make()
        ),
        *(str((PICTURES / name).relative_to(ROOT)) for name in sorted(pictures ^ there)),
    ]


def main(argv: Sequence[str]) -> int:
    """The command line; see the module's docstring."""
    if argv == ["--check"]:
        for name in (found := stale()):
            print(f"{name} is stale; run `make docs`", file=sys.stderr)
        return int(bool(found))
    README.write_text(with_table(README.read_text()))
    for path in NOTEBOOKS:
        path.write_text(with_address(path.read_text()))
    PAGE.write_text(page())
    method_docs.PAGE.write_text(method_docs.page())
    systems_page.main([])
    for path in PICTURES.glob("*.png"):
        if path.stem not in jattn.zoo.names(kind="mixer"):
            path.unlink()
    for name in jattn.zoo.names(kind="mixer"):
        path = PICTURES / f"{name}.png"
        if "--redraw" in argv or not path.exists():
            draw_pattern(name, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
