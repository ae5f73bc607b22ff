"""Checkpoints of one fit (orbax): written in the background, checked when read."""

import contextlib
import errno
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from jattn.training.errors import UsageError
from jattn.training.fingerprint import changes
from jattn.training.mirror import mirrored
from jattn.training.parallel import to_host
from jattn.training.stores import Folder, scheme_of

KEPT = 3  # newest checkpoints kept, beside the one with the lowest loss


@jax.jit
def checksum(tree: PyTree) -> UInt32[Array, " leaves"]:
    """Sums the bits of each leaf as unsigned integers, modulo 2^32.

    An integer sum does not depend on its order, so it is the same for any placement of the arrays;
    any change of a single bit changes it.
    """

    def bits(leaf):
        if leaf.dtype == bool:
            leaf = leaf.astype(jnp.uint8)
        size = min(leaf.dtype.itemsize, 4)  # eight-byte leaves are read as pairs
        words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * size}"))
        return jnp.sum(words.astype(jnp.uint32), dtype=jnp.uint32)

    return jnp.stack([bits(leaf) for leaf in jax.tree.leaves(_without_keys(tree))])


class Checkpoints:
    """The checkpoints of one fit, in one folder.

    Args:
        directory: the folder; made if missing. May be in a store, see `stores`.
        settings: what must be equal for a checkpoint to be one of this fit.
        code: fingerprints of what is fitted, see `fingerprint.described`.
        note: called with a line of text where something is worth saying.
    """

    def __init__(
        self,
        directory: Folder,
        settings: dict[str, Any],
        code: dict[str, Any],
        note: Callable[[str], None],
    ):
        # Imported here: it takes most of a second, and most of the library does not need it.
        import orbax.checkpoint as ocp

        self._ocp, self._directory, self._note = ocp, directory, note
        self._settings, self._code = settings, code
        self._losses: dict[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestAndBest(self._losses), cleanup_tmp_directories=True
        )
        self._mirror = mirrored(directory, jax.process_count(), note)
        self._folder = directory
        if self._mirror is not None:
            self._folder = self._mirror.local
        elif scheme_of(directory) is None:
            self._folder = directory.absolute()
        with self._errors():
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        for step in self._manager.all_steps():
            with contextlib.suppress(Exception):  # damage is dealt with when it matters
                self._losses[step] = self._read_settings(step)["loss"]

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """Restores the newest checkpoint that is whole.

        Args:
            like: the state's `ShapeDtypeStruct`s, with the shardings wanted.

        Returns:
            The step and the state, or None if there is no checkpoint yet.

        Raises:
            UsageError: there are checkpoints but none can be read, or they are of another fit.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = []
        for step in steps:
            try:
                state = self._read(step, like)
                for newer in damaged:  # else it would be in the way of its successor
                    self._manager.delete(newer)
                return step, state
            except UsageError:
                raise
            except Exception as error:  # orbax and tensorstore raise many kinds
                damaged.append(step)
                reason = str(error).strip().splitlines()[0][:120] if str(error) else repr(error)
                self._note(
                    f"warning: checkpoint {self._directory.name}/{step} is damaged ({reason}); "
                    "trying the one before"
                )
        if steps:
            raise UsageError(
                f"{self._directory}: none of its {len(steps)} checkpoints can be read; move the "
                "folder away to train this fit from the start"
            )
        return None

    def _read(self, step: int, like: PyTree) -> PyTree:
        args = self._ocp.args
        stored = self._read_settings(step)
        for field, value in self._settings.items():
            if stored.get(field) != value:
                raise UsageError(
                    f"{self._directory}: its checkpoints were made with "
                    f"{field}={stored.get(field)}, now {field}={value}; use another "
                    "workdir, or move the folder away to train this fit from the start"
                )
        changed = changes(stored.get("code"), self._code)
        if isinstance(changed, str):
            self._check_arrays(step, like)
            self._note(
                f"{self._directory.name}: whether its code changed since its checkpoint cannot be "
                f"checked: {changed}"
            )
        elif changed:
            self._note(f"warning: checkpoint {self._directory.name}/{step} is of other code")
            raise UsageError(
                f"{self._directory}: its checkpoints are of other code (changed: "
                f"{', '.join(changed)}); use another workdir, or move the folder away to train "
                "this fit from the start"
            )
        state = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(like)))[
            "state"
        ]
        if np.asarray(to_host(checksum(state))).tolist() != stored["checksum"]:
            raise ValueError("its checksum differs")
        return state

    def _check_arrays(self, step: int, like: PyTree) -> None:
        """Refuses a state of other arrays, which orbax would take for a damaged one."""
        folder = self._folder / str(step) / "state"
        tree = self._ocp.StandardCheckpointer().metadata(folder).item_metadata.tree
        old, new = _shapes(tree), _shapes(jax.eval_shape(_without_keys, like))
        for name in [*new, *(name for name in old if name not in new)]:
            if old.get(name) != new.get(name):
                raise UsageError(
                    f"{self._directory}: its checkpoints are of another model or optimizer "
                    f"({name} was {old.get(name, 'absent')}, now {new.get(name, 'absent')}); use "
                    "another workdir, or move the folder away to train this fit from the start"
                )

    def _read_settings(self, step: int) -> dict[str, Any]:
        args = self._ocp.args
        stored = self._manager.restore(step, args=args.Composite(settings=args.JsonRestore()))
        settings = stored["settings"]
        if "check" in settings and settings.pop("check") != _check(settings):
            raise ValueError("the checksum of its settings differs")
        return settings

    def save(self, step: int, state: PyTree, loss: float) -> None:
        """Starts to save; the arrays may be given up as soon as this returns.

        Raises:
            UsageError: the disk is full. Earlier checkpoints are left as they were.
        """
        args = self._ocp.args
        settings = {
            **self._settings,
            "code": self._code,
            "loss": loss,
            "checksum": to_host(checksum(state)).tolist(),
        }
        settings["check"] = _check(settings)
        self._losses[step] = loss
        # On a CPU the background writer may still read the very buffers of `state`, which the next
        # dispatch overwrites.
        state = jax.tree.map(jnp.copy, state)
        with self._errors():
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave(state), settings=args.JsonSave(settings)
                ),
            )
            if self._mirror is not None:
                self._manager.wait_until_finished()
                self._mirror.push()

    def wait(self) -> None:
        """Waits until what was started is written."""
        with self._errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the background threads."""
        with self._errors():
            self._manager.close()
        if self._mirror is not None:
            self._mirror.close()

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except Exception as error:
            full = getattr(error, "errno", None) == errno.ENOSPC or any(
                words in str(error) for words in ("No space left", "ENOSPC")
            )
            if full:
                raise UsageError(
                    f"{self._directory}: no space left on the disk; earlier checkpoints are "
                    "intact. Free some space and run the same command to go on"
                ) from error
            raise


def _check(settings: dict[str, Any]) -> int:
    """A checksum of settings; the checkpoints of earlier versions have none."""
    return zlib.crc32(json.dumps(settings, sort_keys=True).encode())


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shapes of a tree's arrays by their dotted names."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): tuple(x.shape) for p, x in found}


def _without_keys(tree: PyTree) -> PyTree:
    """Random keys as the integers that they are stored as."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


class _NewestAndBest:
    """Which checkpoints orbax keeps: the newest ones, and the one with the lowest loss."""

    def __init__(self, losses: dict[int, float]):
        self._losses = losses

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        known = [step for step in steps if step in self._losses]
        kept = {*sorted(steps)[-KEPT:], *sorted(known, key=lambda step: self._losses[step])[:1]}
        return [step in kept for step in steps]
