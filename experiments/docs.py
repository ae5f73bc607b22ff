"""Writes the README's table of mechanisms from the zoo.

python -m experiments.docs            writes it
python -m experiments.docs --check    exits with 1 if it is stale
"""

import re
import sys
from pathlib import Path

import jattn

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- mechanisms: .*? -->\n).*?(<!-- end -->)", re.DOTALL)


def mechanism_table() -> str:
    """The table of all mechanisms, in Markdown."""
    lines = ["| name | paper | equation | cost | can |", "|---|---|---|---|---|"]
    for name in jattn.zoo.names():
        card = jattn.zoo.info(name)
        traits = ("causal", "bidirectional", "cross", "streaming")
        can = ", ".join(trait for trait in traits if getattr(card, trait))
        # A bar would end the cell.
        equation = card.equation.replace("|", "\\|")
        paper = f"{card.title} [{card.arxiv}](https://arxiv.org/abs/{card.arxiv})"
        lines.append(f"| `{name}` | {paper} | `{equation}` | {card.cost} | {can} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The README with its table written anew."""
    return BLOCK.sub(lambda match: match[1] + mechanism_table() + match[2], text)


def main(argv: list[str]) -> int:
    """The command line; see the module's docstring."""
    old = README.read_text()
    new = with_table(old)
    if argv == ["--check"]:
        if old != new:
            print("README.md: the table of mechanisms is stale; run `make docs`", file=sys.stderr)
        return int(old != new)
    README.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
