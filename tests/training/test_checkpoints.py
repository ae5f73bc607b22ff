"""Checkpoints: which are kept, what damage does, and a full disk."""

import errno
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from jattn.training import Parallel, UsageError
from jattn.training.checkpoints import Checkpoints, checksum
from jattn.training.fingerprint import described

ONE = Parallel(mesh={"data": 1, "model": 1})


def damage(step_folder):
    """Flips one bit in each of the files that hold the arrays."""
    for file in (step_folder / "state" / "d").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 16
        file.write_bytes(content)


def test_damage_falls_back(train, tmp_path):
    good = train(tmp_path, ONE, checkpoint_every=10)
    folder = tmp_path / "checkpoints" / "line"
    damage(folder / "40")
    notes = []
    again = train(tmp_path, ONE, notes=notes, checkpoint_every=10)
    assert len([note for note in notes if note.startswith("warning: checkpoint line/40")]) == 1
    assert notes[1:] == ["line: going on from step 30"]
    for field, value in good.history.items():
        np.testing.assert_array_equal(again.history[field], value)
    notes.clear()  # the damaged one has been written anew
    train(tmp_path, ONE, notes=notes)
    assert notes == []

    for step in folder.iterdir():
        damage(step)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="none of its 3 checkpoints can be read"):
        train(tmp_path, ONE, notes=notes)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_keeps_the_newest_and_the_best(tmp_path):
    losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0, 6: 9.0, 7: 8.0}
    for steps in ((1, 2, 3, 4), (5, 6, 7)):  # the second time the losses are read back
        checkpoints = Checkpoints(tmp_path, {}, described({}), print)
        for step in steps:
            checkpoints.save(step, {"w": jnp.full(3, step)}, losses[step])
        checkpoints.close()
    assert {int(path.name) for path in tmp_path.iterdir()} == {2, 5, 6, 7}


def test_other_settings_are_refused(train, tmp_path):
    train(tmp_path, ONE)
    with pytest.raises(UsageError, match="made with steps=40, now steps=50"):
        train(tmp_path, ONE, steps=50)


def test_full_disk_keeps_the_checkpoints_before(train, tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_until_full(self, step, state, loss):
        if step == 20:

            def full(*_, **__):
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(self._manager, "save", full)
        save(self, step, state, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_until_full)
        with pytest.raises(UsageError, match="no space left on the disk; earlier"):
            train(tmp_path, ONE, checkpoint_every=10)
    notes = []
    resumed = train(tmp_path, ONE, notes=notes)
    assert notes == ["line: going on from step 10"]
    shutil.rmtree(tmp_path / "checkpoints")
    np.testing.assert_array_equal(resumed.params["w"], train(tmp_path, ONE).params["w"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool"])
def test_checksum_sees_one_bit(dtype):
    values = np.arange(6) % 2
    before = jnp.asarray(values, dtype)
    after = before.at[3].set(before[2])
    sums = [np.asarray(checksum({"a": a, "b": before})) for a in (before, after)]
    assert sums[0][0] != sums[1][0]
    assert sums[0][1] == sums[1][1]
