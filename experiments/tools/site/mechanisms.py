"""A page for each mechanism of the zoo, and the cards that choose among them."""

import csv
import inspect
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jattn
from experiments.reproduce import REGISTERED
from experiments.tools import docs, pictures
from experiments.tools.site import kernels
from experiments.tools.site.markdown import escaped, rendered
from jattn.mechanisms.mechanism import COSTS, KINDS, Mechanism
from jattn.testing import checks_of

ROOT = docs.ROOT
SIZE = "dim 64, 4 heads, 256 tokens, float32"


def example(name: str) -> str:
    """A program that makes a mechanism and applies it, with what it prints, for doctest."""
    mechanism = jattn.zoo.info(name)
    causal = ", causal=True" if mechanism.causal else ""
    heads = ", heads=4" if mechanism.kind == "mixer" else ""
    inputs, shape = "x", (2, 32, 64)
    if mechanism.kind == "pointer":
        inputs, shape = "x, x", (2, 32, 32)
    if mechanism.kind == "pool":
        pooled = jattn.zoo.make(name, dim=64)
        shape = _pooled_shape(pooled)
    return (
        ">>> import jax\n>>> import jattn\n"
        f'>>> {mechanism.kind} = jattn.zoo.make("{name}", dim=64{heads}{causal})\n'
        f">>> params = {mechanism.kind}.init(jax.random.key(0))\n"
        ">>> x = jax.random.normal(jax.random.key(1), (2, 32, 64))\n"
        f">>> {mechanism.kind}.apply(params, {inputs}).shape\n{shape}\n"
    )


def _pooled_shape(pool: Any) -> tuple[int, ...]:
    import jax

    params = jax.eval_shape(pool.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, 32, 64), "float32")
    return jax.eval_shape(pool.apply, params, x).shape


def costs() -> dict[str, dict[str, str]]:
    """The rows of docs/zoo_table.csv by name."""
    with (ROOT / "docs" / "zoo_table.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def experiments_about() -> dict[str, list[str]]:
    """Experiments that cite a mechanism's paper, by its arXiv id."""
    found: dict[str, list[str]] = {}
    for name in REGISTERED:
        path = ROOT / "experiments" / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        files.append(ROOT / "configs" / f"{name}.py")
        text = "".join(file.read_text() for file in files if file.exists())
        for arxiv in set(re.findall(r"\b\d{4}\.\d{5}\b", text)):
            found.setdefault(arxiv, []).append(name)
    return found


def _traits(mechanism: Mechanism) -> list[str]:
    names = ("causal", "bidirectional", "cross", "streaming")
    return [name for name in names if getattr(mechanism, name)]


def _about(mechanism: Mechanism) -> str:
    """What its file says, without the first line, which the page has as its title."""
    module = sys.modules[mechanism.make.__module__]
    text = (inspect.getdoc(module) or "").partition("\n")[2].strip("\n")
    return rendered(re.sub(r"^Paper: .*(\n\n|$)", "", text))


def _cost_text(mechanism: Mechanism, cost: Mapping[str, str] | None) -> str:
    grows = f"Operations grow as **{mechanism.cost}** in the number of tokens"
    if cost is None:
        return f"{grows}; the conformance suite counts them."
    return (
        f"{grows}; the conformance suite counts them.\n\n"
        f"| | {SIZE}{', causal' if cost['causal'] == 'True' else ''} |\n|---|---|\n"
        f"| parameters | {int(cost['parameters']):,} |\n"
        f"| operations of a call | {float(cost['flops']) / 1e6:.3f} MFLOP |\n"
        f"| temporary memory | {int(cost['temporaries']) / 1024:,.0f} KiB |\n\n"
        "All of the zoo beside each other: [by cost](../zoo_table.md)."
    )


def _kernel_text(found: Sequence[str]) -> str:
    if not found:
        return (
            "No Pallas kernel: the program is XLA's own on every platform, at the size tried "
            f"({kernels.LENGTH} tokens, {kernels.HEADS} heads of 128, bfloat16, TPU v5e)."
        )
    named = ", ".join(f"`{name}` ({kernels.WORDS.get(name, 'engine')})" for name in found)
    return (
        f"On TPUs its forward pass runs {named}, read off the program that is traced for a TPU v5e "
        f"({kernels.LENGTH} tokens, {kernels.HEADS} heads of 128, bfloat16). On Hopper GPUs the "
        'kernel is taken by name only (`implementation="pallas"`); on CPUs XLA runs it in blocks.'
    )


def _links(paths: Mapping[Path, int]) -> str:
    return "".join(
        f"- {count} oracles in [{path.name}](../../{path.relative_to(ROOT)})\n"
        for path, count in paths.items()
    )


def page(
    mechanism: Mechanism,
    *,
    oracles: Mapping[Path, int],
    golden: int,
    cost: Mapping[str, str] | None,
    found: Sequence[str],
    about: Sequence[str],
) -> str:
    """The page of one mechanism."""
    name = mechanism.name
    badges = [mechanism.kind, mechanism.family, *_traits(mechanism)]
    checks = "- the conformance suite: " + ", ".join(
        c.replace("_", " ") for c in checks_of(mechanism)
    )
    cases = f"- {golden} golden case{'s' * (golden > 1)}: outputs of a trusted implementation\n"
    runs = "".join(
        f"- `python -m experiments.{one} --workdir=runs/{one}`, "
        f"[its config](../../configs/{one}.py)\n"
        for one in about
    )
    options = ", ".join(f"`{option}`" for option in jattn.zoo.options(name)) or "none"
    module = mechanism.make.__module__
    source = Path(*module.split(".")).with_suffix(".py")
    return "\n".join(
        [
            f"---\norphan: true\n---\n# {name}\n",
            "[All mechanisms](index.md)\n",
            " ".join(f"{{bdg-primary-line}}`{badge}`" for badge in badges) + "\n",
            f"```{{figure}} ../figures/patterns/{name}.png\n:figclass: jattn-map\n:align: right\n"
            f":alt: what {name} looks at\n\n{pictures.CAPTIONS[mechanism.kind]}\n```\n",
            f"**{escaped(mechanism.title)}**"
            + (
                f", [arXiv {mechanism.arxiv}](https://arxiv.org/abs/{mechanism.arxiv})\n"
                if mechanism.arxiv
                else "\n"
            ),
            f"```text\n{mechanism.equation}\n```\n",
            _about(mechanism) + "\n",
            f"## Use it\n\n```pycon\n{example(name)}```\n",
            f"Options: {options}; [what they mean](../reference/{module}.md).\n",
            f"## Cost\n\n{_cost_text(mechanism, cost)}\n",
            f"## Kernels\n\n{_kernel_text(found)}\n",
            f"## Checks passed\n\n{checks}\n{_links(oracles)}{cases if golden else ''}",
            f"## Claims of its paper\n\n{runs}" if runs else "",
            f"Source: [{source}](../../{source}).\n",
        ]
    )


def card(mechanism: Mechanism, found: Sequence[str], claims: bool) -> str:
    """A card of the grid; its `data-` attributes are what the filters look at."""
    data = {
        "kind": mechanism.kind,
        "family": mechanism.family,
        "cost": mechanism.cost,
        "causal": "yes" if mechanism.causal else "no",
        "streaming": "yes" if mechanism.streaming else "no",
        "kernel": "yes" if found else "no",
        "claims": "yes" if claims else "no",
    }
    attributes = " ".join(f'data-{key}="{value}"' for key, value in data.items())
    title = mechanism.title.replace("&", "&amp;").replace("<", "&lt;")
    name = mechanism.name
    return (
        f'<a class="jattn-card" href="{name}.html" {attributes}>'
        f'<img src="../_static/patterns/{name}.png" alt="" loading="lazy" width="96" height="96">'
        f"<span><b>{name}</b><small>{title}</small>"
        f"<em>{mechanism.kind} · {mechanism.cost}</em></span></a>"
    )


def index(cards: Sequence[str], choices: Mapping[str, Sequence[str]]) -> str:
    """The page of the grid."""
    selects = "".join(
        f'<label>{name} <select data-filter="{name}"><option value="">all</option>'
        + "".join(f"<option>{value}</option>" for value in values)
        + "</select></label>"
        for name, values in choices.items()
    )
    return (
        "# Mechanisms\n\n"
        f"{len(cards)} published mechanisms, each an `(init, apply)` pair made by "
        "`jattn.zoo.make(name, ...)`. Pictures show what each looks at: of mixers and pools how "
        "much an output (row) depends on a token (column), of gates the factors, of pointers the "
        "probabilities.\n\n"
        "```{raw} html\n"
        f'<div class="jattn-filters" role="search">{selects}'
        '<label>find <input type="search" data-find placeholder="name or paper"></label>'
        '<output aria-live="polite"></output></div>\n'
        f'<div class="jattn-grid">{"".join(cards)}</div>\n```\n'
    )


def pages(static: Path) -> dict[str, str]:
    """The pages of all mechanisms by file; pictures of the cards go to the static folder."""
    tested, golden, cost, about = docs.oracles(), docs.golden_cases(), costs(), experiments_about()
    out, cards = {}, []
    shutil.copytree(docs.PICTURES, static / "patterns", dirs_exist_ok=True)
    for name in jattn.zoo.names():
        mechanism = jattn.zoo.info(name)
        found, cites = kernels.kernels_of(name), about.get(mechanism.arxiv, [])
        out[f"mechanisms/{name}.md"] = page(
            mechanism,
            oracles=tested[name],
            golden=golden.get(name, 0),
            cost=cost.get(name),
            found=found,
            about=cites,
        )
        cards.append(card(mechanism, found, bool(cites)))
    entries = [jattn.zoo.info(name) for name in jattn.zoo.names()]
    either = ("yes", "no")
    out["mechanisms/index.md"] = index(
        cards,
        {
            "kind": KINDS,
            "family": sorted({entry.family for entry in entries}),
            "cost": [cost for cost in COSTS if any(entry.cost == cost for entry in entries)],
            **dict.fromkeys(("causal", "streaming", "kernel", "claims"), either),
        },
    )
    return out
