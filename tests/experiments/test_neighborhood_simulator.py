"""The simulator of tiles: the published bounds, its picture, bad input."""

import numpy as np
import pytest

from experiments.neighborhood_simulator import main, tile_map
from jattn.mechanisms.sparse.neighborhood_attention import tile_counts


def test_it_prints_the_bound_of_a_video(capsys):
    assert main(["--shape=30x48x80", "--window=18x24x24", "--stride=16x8x8"]) == 0
    said = capsys.readouterr().out
    assert "bound: 11.11 times dense attention" in said
    assert "72900 of 810000 are visited, 72900 full and 0 with a mask" in said


def test_the_map_is_what_is_counted(tmp_path, capsys):
    given = ((8, 12), (4, 5), (1, 2), (False, True), (2, 4), (4, 3), (1, 1))
    tiles, counts = tile_map(*given), tile_counts(*given)
    assert tiles.size == counts.dense_tiles
    assert (tiles > 0).sum() == counts.visited_tiles
    assert (tiles == 2).sum() == counts.full_tiles
    assert np.max((tiles > 0).sum(1)) == counts.max_visits_per_q_tile
    file = tmp_path / "tiles.png"
    assert main(["--shape=16x16", "--window=5x5", f"--figure={file}"]) == 0
    assert file.stat().st_size > 5_000
    assert f"drawn in {file}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape=16x16", "--window=17x5"], "window: expected window * dilation <= 16"),
        (["--shape=16x16", "--window=5"], "window: expected one for each axis of (16, 16)"),
        (["--shape=sixteen", "--window=5"], "--shape"),
    ],
)
def test_bad_sizes_are_one_line(flags, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
