"""A local folder and its copy in a store, for what can only be written to local folders.

Orbax writes to `gs://` itself, but not to `s3://`: there checkpoints are written to a local folder
and copied.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from jattn.training import stores
from jattn.training.errors import UsageError
from jattn.training.stores import Folder


class Mirror:
    """Keeps the subfolders of a temporary local folder in a store.

    A subfolder there counts once its list of files, `NAME.json`, is there, which is written last
    and removed first: what a kill left half copied is not looked at, and goes at the next `push`.

    Args:
        remote: the folder in the store.
        note: told, in a line, of a subfolder that does not come as it was sent.

    Attributes:
        local: the local folder, with what the store had.
    """

    def __init__(self, remote: Folder, note: Callable[[str], None]):
        self._remote, self._note = remote, note
        self._temporary = tempfile.TemporaryDirectory(prefix="jattn-checkpoints-")
        self.local = Path(self._temporary.name)
        self._whole = self._listed()
        for name in sorted(self._whole):
            if not self._pull(name):
                self._whole.discard(name)

    def _listed(self) -> set[str]:
        store, inside = stores.opened(self._remote)
        try:
            found = store.ls(inside, detail=False)
        except FileNotFoundError:
            return set()
        files = [name.rstrip("/").rpartition("/")[2] for name in found]
        return {name.removesuffix(".json") for name in files if name.endswith(".json")}

    def _pull(self, name: str) -> bool:
        """Copies one subfolder here; what does not come as it was sent is left out."""
        try:
            sizes = json.loads((self._remote / f"{name}.json").read_bytes())
            for file, size in sizes.items():
                content = (self._remote / name / file).read_bytes()
                if len(content) != size:
                    raise ValueError(f"{file} has {len(content)} bytes of {size}")
                path = self.local / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except (FileNotFoundError, ValueError, AttributeError) as error:
            self._note(
                f"warning: {self._remote / name} is damaged ({stores.reason(error)}); left out"
            )
            shutil.rmtree(self.local / name, ignore_errors=True)
            return False
        return True

    def push(self) -> None:
        """Makes the store's copy equal to the local folder."""
        here = {path.name for path in self.local.iterdir() if path.is_dir()}
        for name in sorted(here - self._whole):
            files = sorted(p for p in (self.local / name).rglob("*") if p.is_file())
            sizes = {}
            for path in files:
                file = path.relative_to(self.local / name).as_posix()
                content = path.read_bytes()
                stores.write(self._remote / name / file, content)
                sizes[file] = len(content)
            stores.write(self._remote / f"{name}.json", json.dumps(sizes).encode())
            self._whole.add(name)
        self._forget(keep=here)

    def _forget(self, keep: set[str]) -> None:
        """Removes from the store what is not kept, lists first, and what is half there."""
        store, inside = stores.opened(self._remote)
        for name in sorted(self._listed() - keep):
            (self._remote / f"{name}.json").unlink(missing_ok=True)
        for name in store.ls(inside, detail=False):
            name = name.rstrip("/").rpartition("/")[2]
            if not name.endswith(".json") and name not in keep:
                store.rm(f"{inside}/{name}", recursive=True)
        self._whole &= keep

    def close(self) -> None:
        """Removes the local folder."""
        self._temporary.cleanup()


def mirrored(directory: Folder, processes: int, note: Callable[[str], None]) -> Mirror | None:
    """The mirror of a folder that orbax cannot write to; None where it can.

    Args:
        directory: the folder.
        processes: those of the run, all of which write to it.
        note: see `Mirror`.

    Raises:
        UsageError: many processes cannot share it.
    """
    if stores.scheme_of(directory) != "s3":
        return None
    if processes > 1:
        raise UsageError(
            f"workdir: s3:// keeps checkpoints of one process, and there are {processes}; use "
            "gs:// or a folder that all of them share"
        )
    return Mirror(directory, note)
