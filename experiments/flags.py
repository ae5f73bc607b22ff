"""Flags of the commands that are no experiments: bad input is one line and exit status 2."""

import argparse
import sys
from collections.abc import Callable, Collection
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that shows a docstring as it is, and complains in one line.

    Args:
        name: the command, as in `python -m experiments.NAME`; what is said starts with the last
            part of it.
        text: what it does.
    """

    def __init__(self, name: str, text: str | None):
        super().__init__(
            prog=name.rpartition(".")[2],
            usage=f"python -m experiments.{name} [flags]",
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the flags, and exits with status 2."""
        print(f"{self.prog}: {message.removeprefix('argument ')}; see --help", file=sys.stderr)
        sys.exit(2)


def words(text: str) -> list[str]:
    """A list separated by commas.

    Example:
        >>> words("v5e,v6e")
        ['v5e', 'v6e']
    """
    return [word for word in text.split(",") if word]


def some_of(what: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """A type of flags: names separated by commas, all of them known.

    Args:
        what: what the names are of, in one word.
        known: those that there are.

    Example:
        >>> some_of("chip", ["v5e", "v6e"])("v6e")
        ['v6e']
    """

    def read(text: str) -> list[str]:
        names = words(text)
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(
                f"no {what} {(wrong or [text])[0]!r}; there are {', '.join(known)}"
            )
        return names

    return read


def count(text: str) -> int:
    """A type of flags: a whole number from 1 on.

    Example:
        >>> count("3")
        3
    """
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    """A type of flags: whole numbers from 1 on, separated by commas.

    Example:
        >>> counts("64,128")
        [64, 128]
    """
    return [count(word) for word in text.split(",")]
