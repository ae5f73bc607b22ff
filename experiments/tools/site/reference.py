"""A page for each public module of jattn, with every public symbol: signature, text, example."""

import ast
import copy
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments.tools.site.markdown import escaped, rendered

# Packages of which only what they export is public; of the others every module is.
EXPORTS_ONLY = ("attention", "nn", "pretrained", "recurrence", "testing", "training")
PARTS = (
    *("attention", "recurrence", "zoo", "mechanisms", "nn", "lens", "losses", "theory", "tasks"),
    *("diffusion", "systems", "training", "testing", "pretrained"),
)


class Module(NamedTuple):
    """A public module, and the symbols of it that no module before it has."""

    value: ModuleType
    symbols: "list[Symbol]"


class Symbol(NamedTuple):
    """A public name: the path under which it is imported, and what it is."""

    path: str
    value: Any


def _is_symbol(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.isclass(value)


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text())


def _exported(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names of `__all__`; else those that a package imports, or that a module defines."""
    tree = _tree(str(module.__file__))
    if (names := getattr(module, "__all__", None)) is None:
        kinds = (ast.FunctionDef, ast.ClassDef)
        names = [node.name for node in tree.body if isinstance(node, kinds)]
        if not names:  # It stands for others.
            imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
            names = [alias.asname or alias.name for node in imports for alias in node.names]
    for name in names:
        if not name.startswith("_"):
            yield name, getattr(module, name)


def modules() -> dict[str, Module]:
    """Public modules by the path that they are imported by."""
    found: dict[str, Module] = {}
    seen: set[int] = set()

    def visit(path: str, module: ModuleType) -> None:
        if path in found:
            return
        found[path] = Module(module, [])
        inner = []
        for name, value in _exported(module):
            if isinstance(value, ModuleType):
                if value.__name__.startswith("jattn."):
                    inner.append((f"{path}.{name}", value))
            elif _is_symbol(value) and id(value) not in seen:
                seen.add(id(value))
                found[path].symbols.append(Symbol(f"{path}.{name}", value))
        for below, value in inner:
            visit(below, value)

    visit("jattn", importlib.import_module("jattn"))
    for part in PARTS:
        package = importlib.import_module(f"jattn.{part}")
        visit(f"jattn.{part}", package)
        if part in EXPORTS_ONLY or not hasattr(package, "__path__"):
            continue
        for below in pkgutil.walk_packages(package.__path__, f"jattn.{part}."):
            visit(below.name, importlib.import_module(below.name))
    return {path: module for path, module in found.items() if module.symbols}


def _node(value: Any) -> Any:
    """Where a function or class is defined, as syntax: annotations as they are written."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(value))
    except TypeError:
        return None
    kinds = (ast.FunctionDef, ast.ClassDef)
    return next(
        (n for n in _tree(str(file)).body if isinstance(n, kinds) and n.name == value.__name__),
        None,
    )


class _Qualified(ast.NodeTransformer):
    """Names of public symbols in full, so that links go to the one that is meant."""

    def __init__(self, value: Any, paths: Mapping[int, str]):
        self.names, self.paths = vars(sys.modules[value.__module__]), paths

    def visit_Name(self, node: ast.Name) -> Any:
        path = self.paths.get(id(self.names.get(node.id)))
        return node if path is None else ast.parse(path, mode="eval").body


def _signature(node: Any, qualified: _Qualified, *, method: bool = False) -> str:
    for part in ast.walk(node.args):
        if isinstance(part, ast.arg) and part.annotation is not None:
            part.annotation = qualified.visit(part.annotation)
    if node.returns is not None:
        node.returns = qualified.visit(node.returns)
    arguments = node.args
    if method and arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args.pop(0)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"({ast.unparse(arguments)}){returns}"


def symbol_text(symbol: Symbol, paths: Mapping[int, str]) -> str:
    """A symbol in Markdown: the directive that Sphinx indexes, and what its docstring says."""
    value, node = symbol.value, copy.deepcopy(_node(symbol.value))
    qualified = _Qualified(value, paths)
    text = rendered(inspect.getdoc(value) or "")
    if isinstance(node, ast.FunctionDef):
        return (
            f"``````{{py:function}} {symbol.path}{_signature(node, qualified)}\n\n{text}\n``````\n"
        )
    fields, methods = [], []
    for part in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            default = "" if part.value is None else f" = {ast.unparse(part.value)}"
            fields.append(f"{ast.unparse(part.target)}: {ast.unparse(part.annotation)}{default}")
        said = ast.get_docstring(part) if isinstance(part, ast.FunctionDef) else None
        if isinstance(part, ast.FunctionDef) and said and not part.name.startswith("_"):
            decorators = [ast.unparse(decorator) for decorator in part.decorator_list]
            kind = "property" if "property" in decorators else "method"
            signature = "" if kind == "property" else _signature(part, qualified, method=True)
            methods.append(
                f"`````{{py:{kind}}} {part.name}{signature}\n\n{rendered(said)}\n`````\n"
            )
    listed = "```python\n" + "\n".join(fields) + "\n```\n\n" if fields else ""
    inside = "\n".join(methods)
    return f"``````{{py:class}} {symbol.path}\n\n{text}\n\n{listed}{inside}\n``````\n"


def first_line(value: Any) -> str:
    """The first sentence of a docstring."""
    return escaped((inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " "))


def pages() -> dict[str, str]:
    """The pages of all modules and their index, by file below the folder of sources."""
    out, parts, found = {}, [], modules()
    paths = {
        id(symbol.value): symbol.path for module in found.values() for symbol in module.symbols
    }
    for path, (module, symbols) in found.items():
        about = rendered(inspect.getdoc(module) or "")
        listed = "\n".join(symbol_text(symbol, paths) for symbol in symbols)
        head = f"---\norphan: true\n---\n# {path}\n\n[All modules](index.md)\n\n{about}\n\n"
        out[f"reference/{path}.md"] = head + listed
        names = ", ".join(f"{{py:obj}}`~{symbol.path}`" for symbol in symbols)
        parts.append((path, first_line(module), names))
    lines = ["# Reference", "", "Every public symbol, by the module that it is imported from.", ""]
    for part in ("", *PARTS):
        top = f"jattn.{part}".rstrip(".")
        lines += [f"## {top}", "", "| module | | symbols |", "|---|---|---|"]
        for path, about, names in parts:
            below = path.startswith(f"{top}.") if part else path == "jattn.masks"
            if path == top or below:
                lines.append(f"| [{path.removeprefix('jattn.')}]({path}.md) | {about} | {names} |")
        lines.append("")
    out["reference/index.md"] = "\n".join(lines)
    return out
