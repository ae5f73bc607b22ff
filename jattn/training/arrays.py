"""Files of arrays that show whether they are whole."""

import hashlib
import io
from collections.abc import Mapping

import numpy as np

from jattn.training.files import write_atomically
from jattn.training.stores import Folder

DIGEST = 64  # characters
END = 22  # bytes that end an archive, in front of its comment


def write_arrays(path: Folder, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an `.npz` file with a digest of its bytes, as the comment of the archive that it is.

    Args:
        path: of the file.
        arrays: by name.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    plain = buffer.getvalue()
    # An archive ends with the length of its comment, which is 0 now, and the comment.
    sealed = plain[:-2] + DIGEST.to_bytes(2, "little") + _digest(plain)
    write_atomically(path, sealed)


def read_arrays(path: Folder) -> dict[str, np.ndarray]:
    """The arrays that `write_arrays` wrote.

    Raises:
        ValueError: a bit of the file is another one.
        OSError: it cannot be read.
    """
    sealed = path.read_bytes()
    if sealed[-END:].startswith(b"PK\5\6"):  # No comment: as earlier versions wrote them.
        plain = sealed
    else:
        plain = sealed[: -DIGEST - 2] + bytes(2)
        if sealed != plain[:-2] + DIGEST.to_bytes(2, "little") + _digest(plain):
            raise ValueError(f"{path}: expected a digest of its bytes at the end, found another")
    try:
        with np.load(io.BytesIO(plain)) as stored:
            return dict(stored)
    except Exception as error:  # whatever a damaged archive has NumPy stumble over
        raise ValueError(f"{path}: {error}") from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
