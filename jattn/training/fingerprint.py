"""Fingerprints of code: hashes that are equal for the same program, in any process.

A run that goes on, or is read back, must be of the code that is there now. Its config says nothing
of that: a loss may change and its config not. So what was computed is kept with the hash of the
program that computed it: of its jaxpr where it is one, else of its byte code.
"""

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

# Parameters of equations that say where or under what name something runs, not what it computes.
PLACE = re.compile(r"name|debug_info|src_info|source_info|mesh|sharding|layout|metadata")
ADDRESS = re.compile(r"0x[0-9a-fA-F]+|\S+:\d+")  # also of a line in a file
VERSION = "2"  # of how fingerprints are made; those of another version cannot be compared
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), enum.Enum, np.dtype, range)


def program_fingerprint(function: Callable, *arguments: Any) -> str:
    """Hash of the program that a function traces to, with the values of the arrays it closes over.

    It does not depend on names, places in files, addresses in memory, or devices.

    Args:
        function: a pure function of arrays.
        arguments: arrays, or their `ShapeDtypeStruct`s.

    Returns:
        Sixteen hexadecimal digits.

    Example:
        >>> double = program_fingerprint(lambda x: x + x, 1.0)
        >>> double == program_fingerprint(lambda y: y + y, 2.0)
        True
        >>> double == program_fingerprint(lambda x: x * x, 1.0)
        False
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    return _Hasher("").of((program, names)).hex()[:16]


def value_fingerprint(tree: PyTree) -> str:
    """Hash of the arrays and numbers of a tree.

    Example:
        >>> value_fingerprint({"x": 1.0}) == value_fingerprint({"x": np.ones(())})
        True
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return _Hasher("").of(leaves).hex()[:16]


def code_fingerprint(function: Callable) -> str:
    """Hash of a function's byte code, and of the functions of its package that it calls.

    Numbers and strings it closes over count, arrays do not.

    Args:
        function: any Python function.

    Returns:
        Sixteen hexadecimal digits; they are those of one version of Python.

    Example:
        >>> one = code_fingerprint(lambda x: x + 1)
        >>> one == code_fingerprint(lambda x: x + 1), one == code_fingerprint(lambda x: x + 2)
        (True, False)
    """
    inner = inspect.unwrap(function)
    package = (getattr(inner, "__module__", None) or "").partition(".")[0]
    return _Hasher(package).of(function).hex()[:16]


def described(parts: Mapping[str, str]) -> dict[str, Any]:
    """Fingerprints as they are stored: with what else decides how code looks.

    Args:
        parts: the fingerprint of each part of what is computed, e.g. of its `"loss"`.

    Returns:
        JSON values, for `changes`.
    """
    python = ".".join(map(str, sys.version_info[:2]))
    made_with = {
        "jax": jax.__version__,
        "python": python,
        "platform": jax.default_backend(),
        "fingerprints": VERSION,
    }
    return {"parts": dict(parts), "made_with": made_with}


def changes(stored: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str] | str:
    """Compares fingerprints of two times, as `described` gives them.

    Args:
        stored: those that were kept; None where none were.
        now: those of the code that is there.

    Returns:
        The names of the parts that changed; or, where it cannot be known, why not.

    Example:
        >>> changes(described({"loss": "a", "sampler": "b"}), described({"loss": "c", "sampler": "b"}))
        ['loss']
        >>> changes(None, described({}))
        'it has no fingerprint'
    """  # noqa: E501
    if not stored:
        return "it has no fingerprint"
    for name, version in now["made_with"].items():
        if stored["made_with"].get(name) != version:
            before = stored["made_with"].get(name, "of an earlier version")
            return f"it was made with {name} {before}, now {version}"
    return [name for name, part in now["parts"].items() if stored["parts"].get(name) != part]


class _Hasher:
    """Hashes a value and all that is in it, once each.

    Args:
        package: functions of this package are followed into the functions that they call.
    """

    def __init__(self, package: str):
        self._package = package
        self._known: dict[int, tuple[Any, bytes]] = {}  # by identity; the value is kept alive
        self._open: set[int] = set()

    def of(self, value: Any) -> bytes:
        """The hash of a value."""
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:  # a function that calls itself
            return b"again"
        self._open.add(id(value))
        sha = hashlib.sha256()
        for part in self._parts(value):
            piece = part if isinstance(part, bytes) else self.of(part)
            sha.update(len(piece).to_bytes(8, "little") + piece)
        self._open.discard(id(value))
        self._known[id(value)] = value, sha.digest()
        return sha.digest()

    def _parts(self, value: Any) -> list[Any]:
        """What a value is made of: bytes, and values that are hashed in turn."""
        kind = type(value).__name__.encode()
        if isinstance(value, PLAIN):
            return [kind, repr(value).encode()]
        if isinstance(value, type):
            return [kind, value.__qualname__.encode()]
        if hasattr(value, "jaxpr") and hasattr(value, "consts"):
            return [b"program", *self._equations(value.jaxpr), list(value.consts)]
        if hasattr(value, "eqns"):
            return [b"program", *self._equations(value), []]
        if isinstance(value, jax.Array) or hasattr(value, "__array__"):
            return [b"array", str(value.dtype).encode(), repr(value.shape).encode(), _bits(value)]
        if hasattr(value, "dtype") and hasattr(value, "shape"):  # of an array that is not there
            return [b"type", _type(value).encode()]
        if isinstance(value, Mapping):
            return [b"dict", *(x for key in sorted(value, key=str) for x in (str(key), value[key]))]
        if isinstance(value, list | tuple):
            return [b"list", *value]
        if isinstance(value, set | frozenset):
            return [b"set", *sorted(self.of(x) for x in value)]
        if isinstance(value, functools.partial):
            return [b"partial", value.func, value.args, value.keywords]
        if isinstance(value, types.CodeType):
            return [b"code", value.co_code, value.co_names, value.co_consts]
        if callable(value) and isinstance(inspect.unwrap(value), types.FunctionType):
            return self._function(inspect.unwrap(value))
        if isinstance(value, types.MethodType):
            return [b"method", value.__func__]
        if dataclasses.is_dataclass(value):
            fields = (f.name for f in dataclasses.fields(value) if not PLACE.search(f.name))
            return [kind, *(x for name in fields for x in (name, getattr(value, name, None)))]
        return [kind]

    def _equations(self, jaxpr: Any) -> list[Any]:
        """What a program computes: each value by the operation that gives it and its operands.

        So it does not matter in which order independent operations stand; those that do something
        besides, such as printing, count in their order.
        """
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        values = {v: self.of(["input", i, _type(v.aval)]) for i, v in enumerate(inputs)}

        def read(atom):
            if hasattr(atom, "val"):
                return ["literal", _type(atom.aval), atom.val]
            return values[atom]

        effects = []
        for equation in jaxpr.eqns:
            settings = {k: v for k, v in equation.params.items() if not PLACE.search(k)}
            operands = [read(atom) for atom in equation.invars]
            types = [_type(v.aval) for v in equation.outvars]
            own = self.of([equation.primitive.name, settings, operands, types])
            values |= {v: self.of([own, i]) for i, v in enumerate(equation.outvars)}
            if equation.effects:
                effects.append(own)
        return [len(inputs), effects, [read(atom) for atom in jaxpr.outvars]]

    def _function(self, function: types.FunctionType) -> list[Any]:
        code = function.__code__
        documented = code.co_consts[:1] == (function.__doc__,)
        constants = code.co_consts[1:] if documented else code.co_consts
        parts = [b"function", code.co_code, code.co_names, constants]
        if function.__module__.partition(".")[0] in ("jax", "jaxlib", "flax", "numpy"):
            return parts  # their own memory is none of the program
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        followed = [x for x in (*cells, *(function.__defaults__ or ())) if _is_code(x)]
        return [*parts, followed, self._called(function)]

    def _called(self, function: types.FunctionType) -> list[Any]:
        """The functions of the package that a function may call, found by their names."""
        names = sorted(_names(function.__code__))
        known = function.__globals__
        values = [known[n] for n in sorted(_globals(function.__code__)) if n in known]
        modules = [
            v for v in values if isinstance(v, types.ModuleType) and self._is_ours(v.__name__)
        ]
        values += [getattr(m, name) for m in modules for name in names if hasattr(m, name)]
        found = []
        for value in values:
            inner = inspect.unwrap(value) if callable(value) else value
            if isinstance(inner, types.FunctionType):
                if self._is_ours(inner.__module__):
                    found.append(inner)
            elif isinstance(inner, PLAIN):
                found.append(inner)
        return found

    def _is_ours(self, module: str) -> bool:
        return bool(self._package) and module.partition(".")[0] == self._package


def _is_code(value: Any) -> bool:
    """Whether it says what to do: functions and settings do; arrays and growing lists do not."""
    if isinstance(value, tuple):
        return all(_is_code(x) for x in value)
    return isinstance(value, (*PLAIN, functools.partial)) or callable(value)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # not given a value yet
        return False


def _names(code: types.CodeType) -> set[str]:
    inner = [x for x in code.co_consts if isinstance(x, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _globals(code: types.CodeType) -> set[str]:
    """The names that are looked up as globals; others are of attributes, whatever they are."""
    inner = [x for x in code.co_consts if isinstance(x, types.CodeType)]
    own = {x.argval for x in dis.get_instructions(code) if x.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(_globals, inner))


def _type(aval: Any) -> str:
    """An array's type, given its abstract value or its `ShapeDtypeStruct`."""
    return ADDRESS.sub("", str(aval))


def _bits(array: Any) -> bytes:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return b""  # its parts lie with other processes, too
    return np.ascontiguousarray(np.asarray(array)).tobytes()
