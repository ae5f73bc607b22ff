"""Reading a folder of safetensors: a header in JSON, and the arrays behind it as they are.

Reference: the format, https://huggingface.co/docs/safetensors.
"""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
LONGEST_HEADER = 100_000_000  # as the format has it


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of one file by name, mapped from the disk.

    Args:
        path: of the file.

    Raises:
        ValueError: no such file, or one that is damaged or of other types than float.

    Example:
        >>> read_safetensors("/nowhere/model.safetensors")
        Traceback (most recent call last):
        ...
        ValueError: /nowhere/model.safetensors: expected a safetensors file, found none
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a safetensors file, found none")
    try:
        return _read(path)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        said = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: damaged, or not a safetensors file: {said}") from None


def _read(path: Path) -> dict[str, np.ndarray]:
    data = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if not 0 < length <= min(LONGEST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
    header: dict[str, Any] = json.loads(data[8 : 8 + length].tobytes())
    data, arrays = data[8 + length :], {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name}: expected one of {tuple(DTYPES)}, got {entry['dtype']}")
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
        start, end = entry["data_offsets"]
        bad = any(not isinstance(size, int) or size < 0 for size in (*shape, start))
        if bad or end > len(data) or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name}: shape {list(shape)} in bytes {start} to {end}")
        arrays[name] = data[start:end].view(dtype).reshape(shape)
    return arrays


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A local folder in the layout of Hugging Face: `config.json`, and all arrays of all files.

    Args:
        folder: with `config.json` and one or more `*.safetensors`.

    Returns:
        The configuration, and arrays by name.

    Raises:
        ValueError: a file is not there or damaged.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise ValueError(f"{folder}: expected a folder with config.json and *.safetensors")
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'}: expected an object, got {config!r}")
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        arrays |= read_safetensors(file)
    return config, arrays
