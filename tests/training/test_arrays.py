"""A file of arrays is read as it was written, or refused."""

import numpy as np
import pytest

from jattn.training.arrays import read_arrays, write_arrays

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("text"), "c": np.zeros((0, 2), bool)}


def test_arrays_come_back_and_numpy_reads_them_too(tmp_path):
    path = tmp_path / "folder" / "some.npz"
    write_arrays(path, ARRAYS)
    with np.load(path) as stored:
        for found in (read_arrays(path), stored):
            assert sorted(found) == sorted(ARRAYS)
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(found[name], array)
                assert found[name].dtype == array.dtype
    again = tmp_path / "again.npz"
    write_arrays(again, ARRAYS)
    assert again.read_bytes() == path.read_bytes()


def test_every_damage_is_found(tmp_path):
    path = tmp_path / "some.npz"
    write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    flipped = [
        whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]
        for at in range(0, len(whole))
    ]
    for damaged in (*flipped, b"", whole[:1], whole[:-1], whole + b"\0", whole[:40], whole * 2):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="expected a digest of its bytes at the end"):
            read_arrays(path)
