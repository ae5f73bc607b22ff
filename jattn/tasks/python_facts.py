"""Questions about Python's standard library, whose answers the running interpreter knows.

Four forms: in which module a name is, whether it is a function or a class, what its first parameter
is called, and whether it takes a parameter of some name.
"""

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MODULES = (
    "json", "random", "textwrap", "statistics", "shutil", "glob", "calendar", "fractions",
    "difflib", "copy", "bisect", "heapq", "string", "tempfile", "zipfile", "csv", "dis", "tokenize",
    "inspect", "pprint", "shlex", "queue", "sched", "uuid", "ipaddress", "fnmatch",
    "colorsys", "contextlib", "functools",
)  # fmt: skip
FORMS = ("module", "kind", "parameter", "takes")
ASKED = {
    "module": "In which module of Python is `{name}`?",
    "kind": "Is `{module}.{name}` a function or a class?",
    "parameter": "What is the first parameter of `{module}.{name}`?",
    "takes": "Does `{module}.{name}` take a parameter named `{word}`?",
}
PATTERNS = {
    form: re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", re.escape(text)))
    for form, text in ASKED.items()
}


class Thing(NamedTuple):
    """A function or class of the standard library.

    Attributes:
        module, name: where it is and what it is called.
        kind: `"function"` or `"class"`.
        parameters: names of its parameters, without self.
        summary: the first line of its documentation.
    """

    module: str
    name: str
    kind: str
    parameters: tuple[str, ...]
    summary: str


def python_things(modules: Sequence[str] = MODULES) -> list[Thing]:
    """The public functions and classes of modules that have a parameter, each name once.

    Example:
        >>> next(thing for thing in python_things(["json"]) if thing.name == "dumps")[:4][:3]
        ('json', 'dumps', 'function')
    """
    found: dict[str, list[Thing]] = {}
    for module in modules:
        for name, value in vars(importlib.import_module(module)).items():
            if (thing := _thing(module, name, value)) is not None:
                found.setdefault(name, []).append(thing)
    # A name of two modules has no answer to the first form.
    return sorted(things[0] for things in found.values() if len(things) == 1)


def _thing(module: str, name: str, value: object) -> Thing | None:
    kind = "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else ""
    if name.startswith("_") or not kind or getattr(value, "__module__", "") != module:
        return None
    try:
        parameters = tuple(inspect.signature(value).parameters)  # pyright: ignore
    except (ValueError, TypeError):  # some that are not written in Python do not say
        return None
    told = (inspect.getdoc(value) or "").split("\n")[0]
    return Thing(module, name, kind, parameters, told) if parameters and told else None


def ask(thing: Thing, form: str, rng: np.random.Generator, others: Sequence[str]) -> str:
    """A question about a thing; half of those of form `takes` name a parameter of another."""
    own = rng.random() < 0.5
    words = thing.parameters if own else [w for w in others if w not in thing.parameters]
    word = words[rng.integers(len(words))] if form == "takes" else ""
    return ASKED[form].format(module=thing.module, name=thing.name, word=word)


def answer(things: Sequence[Thing], question: str) -> str | None:
    """The right answer to a question, or None if it is of no form, or about nothing that is there.

    Example:
        >>> things = python_things(["json"])
        >>> answer(things, "Does `json.dumps` take a parameter named `indent`?")
        'Yes'
        >>> answer(things, "In which module of Python is `loads`?"), answer(things, "Why?")
        ('json', None)
    """
    for form, pattern in PATTERNS.items():
        if not (match := pattern.fullmatch(question)):
            continue
        said = match.groupdict()
        for thing in things:
            if thing.name == said["name"] and thing.module == said.get("module", thing.module):
                return {
                    "module": thing.module, "kind": thing.kind, "parameter": thing.parameters[0],
                    "takes": "Yes" if said.get("word") in thing.parameters else "No",
                }[form]  # fmt: skip
    return None


def document(thing: Thing) -> str:
    """What the documentation says of a thing, in a line or two.

    Example:
        >>> document(Thing("json", "loads", "function", ("s", "cls"), "Deserialize."))
        '`json.loads(s, cls)` is a function of the module json. Deserialize.'
    """
    call = f"{thing.module}.{thing.name}({', '.join(thing.parameters)})"
    return f"`{call}` is a {thing.kind} of the module {thing.module}. {thing.summary}"
