"""Chooses the sizes of the attention kernels' tiles for each TPU, and writes the table of them.

    python -m experiments.tools.tune                              all chips, all classes: an hour
    python -m experiments.tools.tune --chips=v5e --only=128       those whose name has "128" in it

Needs no TPU: libtpu compiles each candidate for the chip and estimates the cycles of its kernels
from the final schedule (pip install 'jattn[tpu]'). These are estimates, not times: right in
ranking, optimistic where memory decides. A class is a chip, the largest head size, and the sort of
mask: causal, or a window (of 256 tokens). One head, 4096 tokens, bfloat16.

First tiles are compared, then parts of the best ones; forward and backward choose for themselves.
Only candidates whose estimate is to be trusted are looked at: estimates follow tiles that are found
by sums, not by divisions, so blocks that a kernel goes along are multiples of those it meets. What
saves less than 3 % against the defaults is not taken, nor what does not compile with a full bias,
which takes the most memory. Causal tiles of 2048 are no candidates: they compile three to five
times as long. Blocks of masks that are no bands come from prefetched tables, which the estimates
cannot follow: those keep the defaults, as do all dtypes but bfloat16.

The table is jattn/attention/block_table.json; classes not chosen stay as they are, and each is
written when it is done. Tiles of the GPU kernels are constants: see experiments.tools.bench_gpu.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import jattn.attention
from experiments.flags import Parser, some_of, words
from experiments.tools.libtpu import TOPOLOGIES
from experiments.tools.tpu_program import MASKS, TpuProgram, compiles, cycles
from jattn.attention.blocks import HEAD_SIZES, Blocks, class_name
from jattn.training.progress import progress

TABLE = Path(jattn.attention.__file__).with_name("block_table.json")
# Blocks that a kernel goes along (of queries forward, of keys backward), and those it meets.
TILES = {"causal": ((1024, 512), (1024, 1024)), "window": ((1024, 1024), (2048, 2048))}
PARTS = (128, 512)  # Besides the default.
WORTH_IT = 0.97
COMPILATIONS = 2 + len(PARTS) + 1  # Of a class: tiles, parts, and whether it fits.
FIELDS = {"forward": Blocks._fields[:3], "backward": Blocks._fields[3:]}

Tile = tuple[int, int, int]
DEFAULT: Tile = Blocks()[:3]


def as_blocks(along: dict[str, Tile]) -> Blocks:
    """Blocks from (gone along, met, part) of the two passes."""
    rows, columns, part = along["forward"]
    keys, queries, backward_part = along["backward"]
    return Blocks(rows, columns, part, queries, keys, backward_part)


def choose(chip: str, dim: int, mask: str, done) -> dict[str, Any]:
    """The table's entry for one class: blocks, and cycles of [what is chosen, the defaults].

    Args:
        chip: of `TOPOLOGIES`.
        dim: head size.
        mask: of `MASKS`.
        done: called after each compilation.
    """
    program = TpuProgram(chip, dim, backward=True, mask=mask, length=4096, heads=1)
    known: dict[str, dict[Tile, int]] = {name: {} for name in FIELDS}

    def estimate(tiles: dict[str, Tile]) -> None:
        found = cycles(program._replace(blocks=as_blocks(tiles))) or {}
        for kernel, count in found.items():
            for name in FIELDS:
                if kernel.startswith(f"attend_{name}"):
                    known[name][tiles[name]] = count
        done()

    def best(name: str) -> Tile:
        tile = min(known[name], key=known[name].__getitem__, default=DEFAULT)
        default = known[name].get(DEFAULT)
        worth_it = default is None or known[name].get(tile, default) <= WORTH_IT * default
        return tile if worth_it else DEFAULT

    part = DEFAULT[2]
    for tile in TILES[mask]:
        estimate(dict.fromkeys(FIELDS, (*tile, part)))
    tiles = {name: best(name)[:2] for name in FIELDS}
    for part in PARTS:
        estimate({name: (*tiles[name], part) for name in FIELDS})
    chosen = {name: best(name) for name in FIELDS}
    fits = compiles(program._replace(extra="full bias", blocks=as_blocks(chosen)))
    done()
    chosen = chosen if fits else dict.fromkeys(FIELDS, DEFAULT)
    estimates = {
        f"{name} cycles": [known[name].get(tile) for tile in (chosen[name], DEFAULT)]
        for name in FIELDS
    }
    return as_blocks(chosen)._asdict() | estimates


def write(table: dict[str, dict[str, Any]]) -> None:
    """One class a line, always in the same order."""
    order = [class_name(dim, mask) for dim in HEAD_SIZES for mask in MASKS]
    chips = []
    for chip in sorted(table, key=list(TOPOLOGIES).index):
        classes = sorted(table[chip].items(), key=lambda item: order.index(item[0]))
        lines = (f"    {json.dumps(name)}: {json.dumps(x)}" for name, x in classes)
        chips.append(f"  {json.dumps(chip)}: {{\n" + ",\n".join(lines) + "\n  }")
    TABLE.write_text("{\n" + ",\n".join(chips) + "\n}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = Parser("tools.tune", __doc__)
    chips = some_of("chip", TOPOLOGIES)
    parser.add_argument("--chips", type=chips, default=list(TOPOLOGIES), help="to compile for")
    parser.add_argument("--only", type=words, help="classes with one of these words in their name")
    chosen = parser.parse_args(argv)
    classes = [
        (chip, dim, mask, class_name(dim, mask))
        for chip in chosen.chips
        for dim in HEAD_SIZES
        for mask in MASKS
        if chosen.only is None or any(word in class_name(dim, mask) for word in chosen.only)
    ]
    if not classes:
        parser.error(f"--only: no class has {' or '.join(chosen.only or [''])} in its name")
    if importlib.util.find_spec("libtpu") is None:
        parser.error("libtpu is missing: pip install 'jattn[tpu]'")
    with progress(Console(), "compilations", COMPILATIONS * len(classes)) as advance:
        for chip, dim, mask, name in classes:
            entry = choose(chip, dim, mask, lambda: advance(1))
            if any(entry[f"{kind} cycles"][0] is None for kind in FIELDS):
                print(f"{chip}, {name}: no estimate, so the defaults", flush=True)
                continue
            table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
            table.setdefault(chip, {})[name] = entry
            write(table)
            print(f"{chip}, {name}: {entry}", flush=True)


if __name__ == "__main__":
    main()
