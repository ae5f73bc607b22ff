"""A run: the folder an experiment works in, and everything it writes there."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike
from ml_collections import ConfigDict
from rich.console import Console

from jattn.training import stores
from jattn.training.arrays import read_arrays, write_arrays
from jattn.training.config_checks import RENAMED, leaves, numbers_of
from jattn.training.configs import check_built, former_fields
from jattn.training.errors import Interrupted, UsageError
from jattn.training.files import remove_unfinished, write_atomically
from jattn.training.fingerprint import changes, code_fingerprint, described
from jattn.training.goodput import Goodput
from jattn.training.lease import Lease
from jattn.training.lock import NAME as LOCK
from jattn.training.lock import Lock, hold
from jattn.training.metrics import Metrics
from jattn.training.parallel import Parallel
from jattn.training.progress import Advance, progress
from jattn.training.provenance import Provenance
from jattn.training.stores import Folder, folder_of, scheme_of
from jattn.training.supervisor import sign_of_life

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CODE = "__code__"  # the entry of kept arrays that holds fingerprints of what computed them


class Run:
    """An open workdir. Make one with `Run.open`.

    Attributes:
        name: the experiment's name.
        workdir: its folder.
        config: the settings, as plain JSON values.
        parallel: how fits are spread over devices.
        interrupted: set it to ask the run to save and stop; fits then raise `Interrupted`.
        profile_steps: how many steps of the next fit to profile, to `profile/`.
        goodput: where the time goes.
        flops: floating-point operations of the training steps made so far.
        figures: captions of the figures saved so far, by name.
        provenance: the times that worked on this run; None where another process writes.
        fits: names of the fits made so far.
    """

    def __init__(
        self,
        name: str,
        workdir: Folder,
        config: dict[str, Any],
        parallel: Parallel,
        command: str | None,
        lock: Lock | Lease | None,
        is_new: bool,
    ):
        self.name, self.workdir, self.config, self.parallel = name, workdir, config, parallel
        self.interrupted = False
        self.profile_steps = 0
        self.goodput = Goodput()
        self.flops = 0.0
        self.figures: dict[str, str] = {}
        self.fits: set[str] = set()
        # Where many processes run, all compute and one of them writes.
        self.writes = jax.process_index() == 0
        self._console = Console(quiet=not self.writes)
        self._metrics = Metrics(workdir) if self.writes else None
        self.provenance = (
            Provenance(workdir, command, parallel.described()) if self.writes else None
        )
        self._lock, self._is_new = lock, is_new
        self._say_where()

    def _say_where(self) -> None:
        """Says in a line that the run goes on on other devices than it last worked on."""
        if self.provenance is None or len(self.provenance.sessions) < 2:
            return
        before, now = (self.provenance.sessions[-n].get("spread") for n in (2, 1))
        if before and before != now:
            self.note(f"{self.workdir}: going on on {now}; last time it was {before}")

    @classmethod
    def open(
        cls,
        workdir: str | os.PathLike,
        config: ConfigDict | Mapping[str, Any],
        *,
        name: str,
        parallel: Parallel | None = None,
        command: str | None = None,
    ) -> "Run":
        """Opens a new workdir, or one that the same experiment with the same config has begun.

        Args:
            workdir: a folder, made if missing; or one in a store, `gs://BUCKET/RUN` or
                `s3://BUCKET/RUN`, in a bucket that is there.
            config: the settings; written to `config.json`.
            name: the experiment's name.
            parallel: how to spread fits over devices; by default what `config.parallel` says.
            command: the command line, for the report.

        Returns:
            The run, as a context manager that closes its files.

        Raises:
            UsageError: a setting that cannot be used; or the folder cannot be written, is in use
                by another run, or belongs to other settings. Then nothing in it is touched.

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
        folder = folder_of(workdir)
        settings = _plain(config)
        check_built(name, settings)
        if parallel is None:
            chosen = settings.get("parallel", {})
            parallel = Parallel(**chosen)
        wanted = {"experiment": name, **settings}
        lock = None
        stores.check_answers(folder)
        try:
            _check_same(folder, wanted)
            is_new = False
            if jax.process_index() == 0:
                if scheme_of(folder) is None:
                    folder.mkdir(parents=True, exist_ok=True)
                lock = hold(folder)
                if isinstance(folder, Path):
                    remove_unfinished(folder)
                _check_same(folder, wanted)  # another run may have begun in between
                is_new = not (folder / "config.json").exists()
                if is_new:
                    text = json.dumps(wanted, indent=2) + "\n"
                    write_atomically(folder / "config.json", text.encode())
            return cls(name, folder, settings, parallel, command, lock, is_new)
        except BaseException as error:
            if lock is not None:
                lock.release()
            if isinstance(error, OSError):
                reason = error.strerror or error
                raise UsageError(f"workdir: {folder} cannot be used: {reason}") from error
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None = None, *_: object
    ) -> None:
        if scheme_of(self.workdir) is not None and stores.is_failure(error):
            return  # what comes now would only fail again, after another while
        if self._metrics is not None:
            self._metrics.close()
        refused = kind is not None and issubclass(kind, UsageError)
        if self.provenance is not None:
            if refused:
                self.provenance.withdraw()
            self.provenance.close(self.goodput.shares(), self.flops)
        if self._is_new and refused:
            # Bad input met before anything was done: the folder is left free for the right one.
            files = stores.names_in(self.workdir)
            ours = ("config.json", "metrics.jsonl")
            if files <= {*ours, LOCK} and not (self.workdir / "metrics.jsonl").read_bytes():
                for name in ours:
                    (self.workdir / name).unlink()
        if self._lock is not None:
            self._lock.release()

    def log(self, step: int, name: str, scalars: Mapping[str, ArrayLike]) -> None:
        """Notes numbers in `metrics.jsonl` and in the TensorBoard events; see `flush`.

        Args:
            step: the step they belong to.
            name: what they are numbers of, e.g. a fit's name.
            scalars: the numbers.
        """
        if self._metrics is not None:
            self._metrics.log(step, name, scalars)

    def log_speed(self, step: int, name: str, scalars: Mapping[str, float]) -> None:
        """Notes how fast something is, in `timings.jsonl` and in the TensorBoard events.

        Args:
            step: the step to which it was so fast.
            name: of a fit.
            scalars: the numbers, which no other run will have.
        """
        if self._metrics is not None:
            self._metrics.log_speed(step, name, scalars)

    def flush(self, now: bool = False) -> None:
        """Writes what was logged to the disk; fits do so after each dispatch.

        Args:
            now: to a store, too, where it else waits until it is worth it. Fits do so before each
                checkpoint, for what lies before one is not logged again.

        Raises:
            UsageError: another run has taken over the folder, see `Lease`.
        """
        if self._lock is not None:
            self._lock.check()
        if self._metrics is not None:
            self._metrics.flush(now)

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

            def alive(count: int, loss: float | None = None) -> None:
                sign_of_life()
                advance(count, loss)

            yield alive

    def cached(
        self,
        name: str,
        compute: Callable[[], Mapping[str, ArrayLike]],
        code: Mapping[str, str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes arrays once; a run that resumes reads them back.

        Args:
            name: name of the result; it is kept in `arrays/NAME.npz`.
            compute: gives the arrays by name.
            code: fingerprints of what computes them, by what they are of; by default that of the
                byte code of `compute` and of the functions of its package that it calls.

        Returns:
            The arrays, as numpy.

        Raises:
            Interrupted: the run was asked to stop; what was computed is kept.
            UsageError: what is kept was computed by other code.
        """
        path = self.workdir / "arrays" / f"{name}.npz"
        now = described({"function": code_fingerprint(compute)} if code is None else code)
        arrays = None
        if path.exists():
            try:
                arrays = read_arrays(path)
                kept = json.loads(str(arrays.pop(CODE, "null")))
            except (OSError, ValueError):
                self.note(f"warning: {path} is damaged; computing it again")
            else:
                self._check_code(path, kept, now)
        if arrays is None:
            arrays = {field: np.asarray(value) for field, value in compute().items()}
            sign_of_life()
            if self.writes:
                write_arrays(path, {CODE: np.array(json.dumps(now)), **arrays})
        if self.interrupted:
            raise Interrupted
        return arrays

    def _check_code(self, path: Folder, kept: Any, now: dict[str, Any]) -> None:
        changed = changes(kept, now)
        if isinstance(changed, str):
            self.note(
                f"{path.stem}: whether its code changed since it was computed cannot be checked: "
                f"{changed}"
            )
        elif changed:
            raise UsageError(
                f"{path} was computed by other code (changed: {', '.join(changed)}); use another "
                "workdir, or move the file away to compute it anew"
            )

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


def _plain(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    fields = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    for field, value in leaves(fields).items():
        if any(math.isnan(number) for number in numbers_of(value)):
            raise UsageError(f"config.{field}: expected a number, got {value}")
    try:
        return json.loads(json.dumps(fields))
    except TypeError as error:
        raise UsageError(f"config: {error}; use numbers, strings, lists and dicts") from None


def _check_same(folder: Folder, wanted: Mapping[str, Any]) -> None:
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        stored = json.loads(path.read_text())
    except ValueError:
        raise UsageError(f"workdir: {path} is not JSON; use another workdir") from None
    old, new = leaves(stored), leaves(wanted)
    # A run that an earlier version has begun goes on: under the names of now, and without what the
    # config no longer has.
    gone = former_fields(wanted["experiment"])
    # How a fit is spread over devices is no part of what it computes: it may go on on others.
    new = {field: value for field, value in new.items() if not field.startswith("parallel.")}
    old = {field: value for field, value in old.items() if not field.startswith("parallel.")}
    old = {
        field if field in new else RENAMED.get(field, field): value
        for field, value in old.items()
        if field in new or field.split(".")[0] not in gone
    }
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
