"""llms.txt: what the site has, in one plain page for language models (llmstxt.org)."""

from pathlib import Path

import jattn
from experiments.tools import docs
from experiments.tools.site.gallery import title_of


def text() -> str:
    """The page."""
    guides = "".join(
        f"- [{title_of(docs.ROOT / 'docs' / name)}]({name.removesuffix('.md')}.html)\n"
        for name in docs.GUIDES
    )
    entries = [jattn.zoo.info(name) for name in jattn.zoo.names()]
    listed = "".join(
        f"- [{entry.name}](mechanisms/{entry.name}.html): {entry.title}"
        f"{f', arXiv {entry.arxiv}' if entry.arxiv else ''}. {entry.kind}, {entry.cost}. "
        f"{entry.equation}\n"
        for entry in entries
    )
    return f"""# jattn

> Attention mechanisms as pure functions in JAX: each published mechanism is an (init, apply) pair,
> as optimisers are in optax, over two fused engines, `jattn.attend` and `jattn.recur`.

Make any with `jattn.zoo.make(name, dim=, heads=, causal=)`, then `params = mixer.init(key)` and
`y = mixer.apply(params, x)` with x [batch, tokens, dim]. In Flax NNX it is `jattn.nn.Mixer(name,
dim=, heads=, causal=, rngs=)`. Arrays of the engines are [batch, tokens, heads, size].

## Guides

{guides}
## Reference

- [Every public symbol](reference/index.html)

## Mechanisms

{listed}"""


def write(folder: Path) -> None:
    """Writes it into the site."""
    (folder / "llms.txt").write_text(text())
