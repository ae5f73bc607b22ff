"""Reading GGUF files: metadata and tensors, by the `gguf` package.

The package believes what lengths a file states, so a damaged one could keep it busy for ever: the
structure is walked here first, and every length held against the bytes that there are.
"""

import importlib
import mmap
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# The types of tensors that are read here; all others are refused by name.
TENSOR_TYPES = ("F32", "F16", "Q8_0", "Q4_1")
STRING, ARRAY = 8, 9
# Bytes of a value by the number of its type; strings and arrays say their lengths themselves.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
MOST_AXES = 4


class GGUF(NamedTuple):
    """A file's metadata, and its tensors as they are stored.

    Attributes:
        path: of the file.
        metadata: values by key; arrays are lists.
        tensors: the package's `ReaderTensor` by name; see `dequantized`.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]


class _Cursor:
    """A place in the file's bytes, which never goes beyond their end."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def skip(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise ValueError(f"{count} bytes stated at byte {self.at} of {len(self.data)}")
        self.at += count

    def number(self, form: str) -> int:
        start = self.at
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self.data, start)[0]

    def text(self) -> str:
        length, start = self.number("<Q"), self.at
        self.skip(length)
        return self.data[start : start + length].decode("utf-8")

    def value(self, kind: int) -> None:
        if kind == STRING:
            self.skip(self.number("<Q"))
        elif kind == ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in SIZES:
                self.skip(count * SIZES[inner])
            elif inner == STRING and count <= len(self.data) - self.at:
                for _ in range(count):
                    self.skip(self.number("<Q"))
            else:
                raise ValueError(f"an array of {count} values of type {inner}")
        elif kind in SIZES:
            self.skip(SIZES[kind])
        else:
            raise ValueError(f"a value of type {kind}")


def _check_structure(data: mmap.mmap) -> None:
    """Walks header, metadata and the list of tensors.

    Raises:
        ValueError: a length, a type or a text that cannot be.
    """
    cursor = _Cursor(data)
    if data[:4] != MAGIC:
        raise ValueError(f"the first bytes {bytes(data[:4])!r}, expected {MAGIC!r}")
    cursor.skip(4)
    version = cursor.number("<I")
    if version not in VERSIONS:
        raise ValueError(f"version {version}, expected one of {VERSIONS}")
    tensors, values = cursor.number("<Q"), cursor.number("<Q")
    for _ in range(min(values, len(data))):
        cursor.text()
        cursor.value(cursor.number("<I"))
    for _ in range(min(tensors, len(data))):
        name, axes = cursor.text(), cursor.number("<I")
        if axes > MOST_AXES:
            raise ValueError(f"{axes} axes of tensor {name!r}")
        cursor.skip(8 * axes + 4 + 8)


def read_gguf(path: str | Path) -> GGUF:
    """Opens a GGUF file; tensors stay on disk until they are dequantised.

    Args:
        path: of the file.

    Raises:
        ValueError: the file is not there, is no GGUF file, is cut off or damaged.
        ImportError: the package `gguf` is not installed.

    Example:
        >>> read_gguf("/nowhere/model.gguf")
        Traceback (most recent call last):
        ...
        ValueError: /nowhere/model.gguf: expected a GGUF file, found none
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a GGUF file, found none")
    try:
        gguf: Any = importlib.import_module("gguf")
    except ImportError as error:
        raise ImportError("gguf is not installed: pip install 'jattn[lm]'") from error
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_structure(data)
        with warnings.catch_warnings():  # of overflows, where sizes are absurd
            warnings.simplefilter("error", RuntimeWarning)
            reader = gguf.GGUFReader(path)
            metadata = {name: field.contents() for name, field in reader.fields.items()}
            tensors = {tensor.name: tensor for tensor in reader.tensors}
    except Exception as error:  # whatever a damaged file has the package stumble over
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{path}: damaged, or not a GGUF file: {said}") from None
    return GGUF(path, metadata, tensors)


def dequantized(file: GGUF, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor in float32.

    Args:
        file: an open file.
        name: of the tensor.
        shape: that it has, rows first (GGUF prints sizes the other way round).

    Returns:
        An array that is the caller's own.

    Raises:
        ValueError: no such tensor, another shape, a type that is not read here, or numbers that
            are not finite.
    """
    gguf: Any = importlib.import_module("gguf")

    if name not in file.tensors:
        raise ValueError(f"{file.path}: expected a tensor {name!r}, found none")
    tensor = file.tensors[name]
    kind, found = tensor.tensor_type.name, tuple(int(size) for size in reversed(tensor.shape))
    if kind not in TENSOR_TYPES:
        raise ValueError(f"{file.path}: {name}: expected one of {TENSOR_TYPES}, got {kind}")
    if found != shape:
        raise ValueError(f"{file.path}: {name}: expected shape {list(shape)}, got {list(found)}")
    with np.errstate(all="ignore"):
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        array = np.array(array, np.float32).reshape(shape)
        finite = bool(np.isfinite(array.sum(dtype=np.float64)))
    if not finite:
        raise ValueError(f"{file.path}: {name}: expected finite numbers; the file is damaged")
    return array


def metadata_of(file: GGUF, kinds: Mapping[str, type | tuple[type, ...]]) -> Iterator[Any]:
    """Values of the metadata in the order of their names.

    Args:
        file: an open file.
        kinds: names, and the type that each has.

    Raises:
        ValueError: one is not there or of another type.
    """
    for name, kind in kinds.items():
        value = file.metadata.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise ValueError(f"{file.path}: {name}: expected a value of type {wanted}, got {value}")
        yield value
