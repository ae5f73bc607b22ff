"""Sweeps: a function over many cells, spread over devices, kept cell by cell."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from jattn.training.fingerprint import program_fingerprint, value_fingerprint
from jattn.training.parallel import map_over_devices
from jattn.training.run import Run


def sweep(
    run: Run,
    name: str,
    function: Callable[[PyTree], dict[str, jax.Array]],
    cells: Sequence[PyTree],
) -> dict[str, np.ndarray]:
    """Computes a function of every cell of a sweep; a run that resumes takes up where it stopped.

    One program computes one cell on each device at a time. Use it where `fit` does not apply:
    exact solutions, Monte Carlo, closed forms.

    Args:
        run: where results are kept, and `run.parallel`, how to spread.
        name: the sweep's name; results are kept as `arrays/NAME_I.npz`.
        function: a pure function of one cell that gives arrays by name.
        cells: pytrees of numbers or arrays, all of one structure and shape.

    Returns:
        The arrays by name, `[cells, ...]`.

    Raises:
        UsageError: what is kept was computed by another function, or of another cell.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run.open(folder, {}, name="example") as run:
        ...         squares = sweep(run, "squares", lambda x: {"square": x * x}, [1.0, 2.0, 3.0])
        squares: 3/3...
        >>> squares["square"].tolist()
        [1.0, 4.0, 9.0]
    """
    together = run.parallel.device_mesh().shape["data"]
    compiled = map_over_devices(function, run.parallel, name)
    program = program_fingerprint(function, cells[0])
    done: list[dict[str, np.ndarray]] = []

    def compute(index):
        # The last piece repeats a cell rather than compile for another length.
        piece = [cells[min(i, len(cells) - 1)] for i in range(index, index + together)]
        return compiled(jax.tree.map(lambda *leaves: np.stack(leaves), *piece))

    with run.progress(name, len(cells)) as advance:
        piece, first = {}, 0
        for index in range(len(cells)):
            # Kept cell by cell, so that a run may go on with another number of devices.
            def one(index=index):
                nonlocal piece, first
                if not piece or not first <= index < first + together:
                    piece, first = compute(index), index
                return {field: values[index - first] for field, values in piece.items()}

            code = {"function": program, "cell": value_fingerprint(cells[index])}
            done.append(run.cached(f"{name}_{index}", one, code))
            advance(1)
    return {field: np.stack([each[field] for each in done]) for field in done[0]}
