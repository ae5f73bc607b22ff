"""A run: the folder an experiment works in, and everything it writes there."""

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike
from ml_collections import ConfigDict
from rich.console import Console

from jattn.training.errors import Interrupted, UsageError
from jattn.training.metrics import Metrics
from jattn.training.parallel import Parallel
from jattn.training.progress import Advance, progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """An open workdir. Make one with `Run.open`.

    Attributes:
        name: the experiment's name.
        workdir: its folder.
        config: the settings, as plain JSON values.
        parallel: how fits are spread over devices.
        interrupted: set it to ask the run to save and stop; fits then raise `Interrupted`.
        figures: captions of the figures saved so far, by name.
        fits: names of the fits made so far.
    """

    def __init__(
        self, name: str, workdir: Path, config: dict[str, Any], parallel: Parallel, is_new: bool
    ):
        self.name, self.workdir, self.config, self.parallel = name, workdir, config, parallel
        self.interrupted = False
        self.figures: dict[str, str] = {}
        self.fits: set[str] = set()
        # Where many processes run, all compute and one of them writes.
        self.writes = jax.process_index() == 0
        self._console = Console(quiet=not self.writes)
        self._metrics = Metrics(workdir) if self.writes else None
        self._is_new = is_new

    @classmethod
    def open(
        cls,
        workdir: str | os.PathLike,
        config: ConfigDict | Mapping[str, Any],
        *,
        name: str,
        parallel: Parallel | None = None,
    ) -> "Run":
        """Opens a new workdir, or one that the same experiment with the same config has begun.

        Args:
            workdir: a folder; made if missing.
            config: the settings; written to `config.json`.
            name: the experiment's name.
            parallel: how to spread fits over devices; by default what `config.parallel` says.

        Returns:
            The run, as a context manager that closes its files.

        Raises:
            UsageError: the folder cannot be written, or belongs to other settings; then nothing
                in it is touched.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     with Run.open(folder, {"steps": 10}, name="example") as run:
            ...         run.log(0, "fit", {"loss": 1.0})
            ...     try:
            ...         Run.open(folder, {"steps": 20}, name="example")
            ...     except UsageError as error:
            ...         print("another config" in str(error))
            True
        """
        folder = Path(workdir)
        settings = _plain(config)
        if parallel is None:
            chosen = settings.get("parallel", {})
            parallel = Parallel(**chosen)
        wanted = {"experiment": name, **settings}
        try:
            _check_same(folder, wanted)
            is_new = False
            if jax.process_index() == 0:
                folder.mkdir(parents=True, exist_ok=True)
                is_new = not (folder / "config.json").exists()
                if is_new:
                    text = json.dumps(wanted, indent=2) + "\n"
                    write_atomically(folder / "config.json", text.encode())
            return cls(name, folder, settings, parallel, is_new)
        except OSError as error:
            raise UsageError(
                f"workdir: {folder} cannot be used: {error.strerror or error}"
            ) from error

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._is_new and kind is not None and issubclass(kind, UsageError):
            # Bad input met before anything was done: the folder is left free for the right one.
            files = {path for path in self.workdir.rglob("*") if path.is_file()}
            ours = {self.workdir / "config.json", self.workdir / "metrics.jsonl"}
            if files == ours and not (self.workdir / "metrics.jsonl").stat().st_size:
                for path in ours:
                    path.unlink()

    def log(self, step: int, name: str, scalars: Mapping[str, ArrayLike]) -> None:
        """Notes numbers in `metrics.jsonl` and in the TensorBoard events; see `flush`.

        Args:
            step: the step they belong to.
            name: what they are numbers of, e.g. a fit's name.
            scalars: the numbers.
        """
        if self._metrics is not None:
            self._metrics.log(step, name, scalars)

    def flush(self) -> None:
        """Writes what was logged to the disk; fits do so after each dispatch."""
        if self._metrics is not None:
            self._metrics.flush()

    def note(self, text: str) -> None:
        """Prints a line, without breaking a progress bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, description: str, total: int, start: int = 0) -> Iterator[Advance]:
        """Shows the progress of a loop: `with run.progress("heads", 8) as advance: advance(1)`.

        Args:
            description: what is being done.
            total: units in all.
            start: units done before.
        """
        with progress(self._console, description, total, start) as advance:
            yield advance

    def cached(
        self, name: str, compute: Callable[[], Mapping[str, ArrayLike]]
    ) -> dict[str, np.ndarray]:
        """Computes arrays once; a run that resumes reads them back.

        Args:
            name: name of the result; it is kept in `arrays/NAME.npz`.
            compute: gives the arrays by name.

        Returns:
            The arrays, as numpy.

        Raises:
            Interrupted: the run was asked to stop; what was computed is kept.
        """
        path = self.workdir / "arrays" / f"{name}.npz"
        arrays = None
        if path.exists():
            try:
                with np.load(path) as stored:
                    arrays = dict(stored)
            except (OSError, ValueError, zipfile.BadZipFile):
                self.note(f"warning: {path} is damaged; computing it again")
        if arrays is None:
            arrays = {field: np.asarray(value) for field, value in compute().items()}
            if self.writes:
                write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore
        if self.interrupted:
            raise Interrupted
        return arrays

    def save_figure(self, figure: "Figure", name: str, caption: str) -> None:
        """Writes `figures/NAME.png`, closes the figure, and keeps its caption for the report.

        Args:
            figure: a matplotlib figure.
            name: name of the file.
            caption: what is to be seen, in a sentence or two.
        """
        import matplotlib.pyplot as plt

        if self.writes:
            write_atomically(
                self.workdir / "figures" / f"{name}.png",
                # No software version in the file: it would differ between equal runs.
                lambda file: figure.savefig(
                    file, dpi=150, bbox_inches="tight", metadata={"Software": None}
                ),
            )
        plt.close(figure)
        self.figures[name] = caption


def write_atomically(path: Path, content: bytes | Callable[[Any], object]) -> None:
    """Writes a file so that at any moment the old or the new one is there, whole.

    Args:
        path: the file; its folder is made if missing.
        content: the bytes, or a function that writes them to an open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    fields = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    try:
        return json.loads(json.dumps(fields))
    except TypeError as error:
        raise UsageError(f"config: {error}; use numbers, strings, lists and dicts") from None


def _check_same(folder: Path, wanted: Mapping[str, Any]) -> None:
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        stored = json.loads(path.read_text())
    except ValueError:
        raise UsageError(f"workdir: {path} is not JSON; use another workdir") from None
    old, new = leaves(stored), leaves(wanted)
    changes = [
        f"{field} was {old.get(field, 'absent')}, now {new.get(field, 'absent')}"
        for field in [*new, *(field for field in old if field not in new)]
        if old.get(field, "absent") != new.get(field, "absent")
    ]
    if changes:
        raise UsageError(
            f"workdir: {folder} holds a run with another config ({'; '.join(changes)}); "
            "use another workdir, or the same config to go on with that run"
        )


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested dicts by their dotted names: `{"mesh.data": 1}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for field, branch in tree.items()
        for name, value in leaves(branch, f"{prefix}.{field}" if prefix else field).items()
    }
