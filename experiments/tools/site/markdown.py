"""Docstrings as Markdown: this repository writes them so that little is to be done."""

import re
import textwrap

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Reference|Example|Note):\s*$")
ITEM = re.compile(r"^([*\w`][^:\n]*?): (.*)$")


def escaped(text: str) -> str:
    """Prose that Markdown shows as it is: no tags, no formulas; code spans are left alone.

    Example:
        >>> escaped("a <b> costs $1, `x < y`")
        'a &lt;b> costs \\\\$1, `x < y`'
    """
    parts = re.split(r"(`[^`]*`)", text)
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("<", "&lt;").replace("$", r"\$").replace("|", r"\|")
    return "".join(parts)


def prose(text: str) -> str:
    """Paragraphs of a docstring; what is indented is code, as equations are."""
    blocks = re.split(r"\n\s*\n", textwrap.dedent(text).strip("\n"))
    out = []
    for block in blocks:
        if block.startswith("    "):
            out.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            lines = block.split("\n")
            # An equation may follow its sentence without an empty line.
            cut = next((i for i, line in enumerate(lines) if line.startswith("    ")), len(lines))
            listed = lines[0].lstrip().startswith(("- ", "* ", "1. "))
            if cut == len(lines) or listed:
                out.append(escaped(block))
            else:
                out.append(escaped("\n".join(lines[:cut])))
                out.append(prose("\n".join(lines[cut:])))
    return "\n\n".join(part for part in out if part)


def items(text: str) -> str:
    """A section of names and what they are, as a list."""
    out: list[str] = []
    for line in textwrap.dedent(text).strip("\n").split("\n"):
        found = ITEM.match(line)
        if found and not line.startswith(" "):
            names = ", ".join(f"`{name.strip('` ')}`" for name in found[1].split(","))
            out.append(f"- {names}: {escaped(found[2])}")
        elif out and line.startswith(" "):
            out.append("  " + escaped(line.strip()))
        else:
            out.append(escaped(line))
    return "\n".join(out)


def rendered(docstring: str) -> str:
    """A docstring with Google's sections as Markdown.

    Example:
        >>> print(rendered("Adds.\\n\\nArgs:\\n    x, y: numbers.\\n\\nReturns:\\n    The sum."))
        Adds.
        <BLANKLINE>
        **Args**
        <BLANKLINE>
        - `x`, `y`: numbers.
        <BLANKLINE>
        **Returns**
        <BLANKLINE>
        The sum.
    """
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in docstring.split("\n"):
        if heading := SECTION.match(line):
            sections.append((heading[1], []))
        elif line.strip() and not line.startswith(" ") and sections[-1][0]:
            sections.append(("", [line]))  # Text behind a section.
        else:
            sections[-1][1].append(line)
    out = []
    for heading, lines in sections:
        body = "\n".join(lines)
        if not body.strip():
            continue
        if heading:
            out.append(f"**{heading}**")
        if heading == "Example":
            out.append(f"```pycon\n{textwrap.dedent(body).strip()}\n```")
        elif heading in ("Args", "Attributes", "Raises"):
            out.append(items(body))
        else:
            out.append(prose(textwrap.dedent(body) if heading else body))
    return "\n\n".join(out)
