"""Workdirs in object stores, `gs://` and `s3://`, beside local folders.

A local folder is a `pathlib.Path`, a remote one an `etils.epath.Path`; what a run does with either
is the same, but that objects are only ever written whole: a store has no half-written object, no
appending and no locks. See `files`, `lease` and `mirror`.
"""

import contextlib
import importlib.util
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from jattn.training.errors import UsageError

SECONDS_TO_ANSWER = 20.0  # a store that says nothing for so long, when a run starts, is not there

Folder = Path | epath.Path


class _Store(NamedTuple):
    package: str  # what speaks to it
    extra: str  # of jattn's, which brings that package
    options: dict[str, Any]


# Listings are not kept: another process may write meanwhile. And what is refused is refused soon:
# fsspec's own patience is minutes.
STORES = {
    "gs": _Store("gcsfs", "gcs", {"use_listings_cache": False, "requests_timeout": 60.0}),
    "s3": _Store(
        "s3fs",
        "s3",
        {
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": 5.0,
                "read_timeout": 60.0,
                "retries": {"max_attempts": 5, "mode": "standard"},
            },
        },
    ),
}
# Packages whose exceptions say that a store, or the way to it, failed.
SPEAKERS = ("aiohttp", "aiobotocore", "botocore", "fsspec", "gcsfs", "google", "s3fs")


def folder_of(path: str | os.PathLike) -> Folder:
    """The folder that a path or a URL names; nothing is looked up or made.

    Args:
        path: a local path, `gs://BUCKET/...` or `s3://BUCKET/...`.

    Raises:
        UsageError: a URL of another kind, one without a bucket, or the package that speaks to the
            store is not installed.

    Example:
        >>> folder_of("runs/example")
        PosixPath('runs/example')
        >>> try:
        ...     folder_of("ftp://host/runs")
        ... except UsageError as error:
        ...     print(error)
        workdir: expected a folder, gs://BUCKET/RUN or s3://BUCKET/RUN, got 'ftp://host/runs'
    """
    text = os.fspath(path)
    scheme, separator, rest = text.partition("://")
    if not separator and not re.match(r"(gs|s3):/", text):
        return Path(text)
    if scheme not in STORES or not rest.strip("/") or rest.startswith("/"):
        raise UsageError(
            f"workdir: expected a folder, gs://BUCKET/RUN or s3://BUCKET/RUN, got {text!r}"
        )
    store = STORES[scheme]
    if importlib.util.find_spec(store.package) is None:
        raise UsageError(
            f"workdir: {scheme}:// needs {store.package}, which is not installed: "
            f"pip install 'jattn[{store.extra}]'"
        )
    import fsspec.config

    # epath makes the file system from what this says.
    fsspec.config.conf.setdefault(scheme, {}).update(store.options)
    return epath.Path(text)


def scheme_of(folder: str | os.PathLike) -> str | None:
    """`"gs"` or `"s3"` for what is in a store, None for local folders.

    Example:
        >>> scheme_of("s3://bucket/run"), scheme_of("runs/example")
        ('s3', None)
    """
    scheme, separator, _ = os.fspath(folder).partition("://")
    return scheme if separator else None


def opened(path: Folder) -> tuple[Any, str]:
    """The fsspec file system that a remote path is in, and the path in it."""
    import fsspec.core

    return fsspec.core.url_to_fs(os.fspath(path))


def check_answers(folder: Folder) -> None:
    """Waits until the store of a remote folder says something, whatever it says of the folder.

    Raises:
        UsageError: it does not answer, or does not let us in.
    """
    if scheme_of(folder) is None:
        return
    failures: list[BaseException] = []

    def ask():
        try:
            folder.exists()
        except BaseException as error:  # told below, in the thread that asked
            failures.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    if asking.is_alive():
        raise UsageError(
            f"workdir: {_bucket(folder)} does not answer within {SECONDS_TO_ANSWER:g} s; look at "
            "the bucket's name, the network and the credentials"
        )
    if failures:
        raise UsageError(
            f"workdir: {_bucket(folder)} cannot be used: {reason(failures[0])}; look at the "
            "bucket's name, the network and the credentials"
        ) from failures[0]


@contextlib.contextmanager
def told(folder: Folder) -> Iterator[None]:
    """Turns the failures of a remote folder's store into one line.

    Raises:
        UsageError: in place of what the store's packages raise.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if scheme_of(folder) is None or not is_failure(error):
            raise
        raise UsageError(
            f"workdir: {_bucket(folder)} failed: {reason(error)}; what was saved before is kept. "
            "Run the same command to go on"
        ) from error


def is_failure(error: BaseException | None) -> bool:
    """Whether an exception comes from a store, or from the way to it."""
    while error is not None:
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in SPEAKERS:
            return True
        if "TensorStore" in str(error) or "tensorstore" in str(error):
            return True
        error = error.__cause__
    return False


def reason(error: BaseException) -> str:
    """What an exception says, in at most one line.

    Example:
        >>> reason(PermissionError("Access Denied\\nrequest 7"))
        'Access Denied request 7'
    """
    text = " ".join(str(error).split())
    return text[:160] if text else type(error).__name__


def names_in(folder: Folder) -> set[str]:
    """The names of all files in a folder and below, without their folders."""
    if scheme_of(folder) is None:
        return {path.name for path in Path(folder).rglob("*") if path.is_file()}
    store, inside = opened(folder)
    return {name.rpartition("/")[2] for name in store.find(inside)}


def create(path: Folder, content: bytes) -> bool:
    """Makes an object if there is none; returns whether it did. The store sees to it that one does.

    Args:
        path: of an object in a store.
        content: its bytes.
    """
    store, inside = opened(path)
    try:
        store.pipe_file(inside, content, mode="create")
    except FileExistsError:
        return False
    return True


def read(path: Folder) -> bytes:
    """Reads one object with one request, so that it is whole though another process rewrites it.

    Raises:
        FileNotFoundError: there is none.
    """
    store, inside = opened(path)
    return store.cat_file(inside)


def write(path: Folder, content: bytes | Callable[[Any], object]) -> None:
    """Writes one object whole; until it is there, the one before is, or none.

    Args:
        path: of an object in a store.
        content: the bytes, or a function that writes them to an open file.
    """
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        content(buffer)
        content = buffer.getvalue()
    store, inside = opened(path)
    store.pipe_file(inside, content)


def _bucket(folder: Folder) -> str:
    scheme, _, rest = os.fspath(folder).partition("://")
    return f"{scheme}://{rest.split('/')[0]}"
