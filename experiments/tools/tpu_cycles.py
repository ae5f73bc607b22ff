"""Estimated cycles (static) of the attention kernels on TPUs, next to jax's flash attention.

    python -m experiments.tools.tpu_cycles                          all tables
    python -m experiments.tools.tpu_cycles --chips=v5e --only=variants

libtpu compiles each program for the chip, on any machine, and estimates the cycles of every part
from its final schedule (pip install 'jattn[tpu]'). These are estimates, not times: right in
ranking, optimistic where memory decides. Batch 1, 2 heads, 2048 tokens, bfloat16, blocks from the
table (see experiments.tools.tune). Exit status 3 if a goal is missed.

flash: causal. Ours takes `[b, t, h, d]` and pays for the change of layout; jax's takes
`[b, h, t, d]`, and once the same arrays as ours, which it then turns. It has the better of two
sizes of blocks.

variants: what comes on top of causal attention, against plain at equal blocks. A biased program
reads its bias, and gives its gradient.

window: a window of 256 tokens against causal. At best it costs the share of 128 x 128 blocks that
it visits.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from rich.console import Console

from experiments.flags import Parser, some_of
from experiments.tools.libtpu import TOPOLOGIES
from experiments.tools.tpu_program import EXTRAS, MASKS, WINDOW, TpuProgram, cycles
from jattn.training.progress import progress

# At most so many times the cycles of what it is compared with.
FLASH_GOALS = {False: 1.0, True: 0.85}
VARIANT_GOAL = 1.25
WINDOW_GOAL = 0.3
PASSES = {False: "forward", True: "forward + backward"}

Advance = Callable[[], None]
Row = tuple[str, bool]  # of a table, and whether its goal is met


def total(program: TpuProgram, advance: Advance) -> tuple[int, int] | None:
    """Cycles of our kernels, and of everything; None where there is no estimate."""
    found = cycles(program)
    advance()
    if found is None:
        return None
    ours = sum(count for name, count in found.items() if name.startswith("attend_"))
    return ours, sum(found.values())


def ratio(ours: int, theirs: int, goal: float) -> Row:
    """Ours to theirs, and whether that is the goal."""
    met = ours <= goal * theirs
    return f"{ours / theirs:.2f}{'' if met else ' (missed)'}", met


def flash_rows(chip: str, advance: Advance) -> Iterator[Row]:
    """Against jax's flash attention."""
    for dim in (128, 64):
        for backward, name in PASSES.items():
            program = TpuProgram(chip, dim, backward)
            kernels, ours = total(program, advance) or (0, 0)
            rivals = []
            for transposed in (False, True):
                tried = [
                    total(program._replace(flash=n, transposed=transposed), advance)
                    for n in (512, 1024)
                ]
                rivals.append(min(all_[1] for all_ in tried if all_))
            flash, turned_flash = rivals
            text, met = ratio(ours, flash, FLASH_GOALS[backward])
            numbers = " | ".join(f"{n:,}" for n in (kernels, ours, flash))
            row = f"{chip} | {dim} | {name} | {numbers} | {text}"
            yield f"{row} | {turned_flash:,} | {ours / turned_flash:.2f}", met


def variant_rows(chip: str, advance: Advance) -> Iterator[Row]:
    """Against plain attention."""
    for backward, name in PASSES.items():
        plain, *others = [total(TpuProgram(chip, 128, backward, extra=x), advance) for x in EXTRAS]
        assert plain is not None
        ratios = [
            ratio(x[1], plain[1], VARIANT_GOAL) if x else ("no estimate", True) for x in others
        ]
        row = " | ".join(text for text, _ in ratios)
        yield f"{chip} | {name} | {plain[1]:,} | {row}", all(met for _, met in ratios)


def window_rows(chip: str, advance: Advance) -> Iterator[Row]:
    """A window against causal, kernels only."""
    for backward, name in PASSES.items():
        program = TpuProgram(chip, 128, backward)
        causal, window = (total(program._replace(mask=mask), advance) for mask in MASKS)
        assert causal is not None
        assert window is not None
        t = program.length
        blocks = [(mask.tiles(t, t, 128, 128) > 0).sum() for mask in MASKS.values()]
        share = blocks[1] / blocks[0]
        text, met = ratio(window[0], causal[0], WINDOW_GOAL)
        yield f"{chip} | {name} | {causal[0]:,} | {window[0]:,} | {text} | {share:.2f}", met


# Name: heading, rows of a chip, and how many programs they compile.
TABLES = {
    "flash": (
        "chip | d | pass | kernels | with layouts | jax flash | ratio "
        "| jax flash, same layout | ratio",
        flash_rows,
        20,
    ),
    "variants": (
        f"chip | pass | {' | '.join(EXTRAS)}",
        variant_rows,
        2 * len(EXTRAS),
    ),
    "window": (
        f"chip | pass | causal | window of {WINDOW} | ratio | visited blocks",
        window_rows,
        4,
    ),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; see the module's docstring."""
    parser = Parser("tools.tpu_cycles", __doc__)
    chips = some_of("chip", TOPOLOGIES)
    parser.add_argument("--chips", type=chips, default=["v5e", "v6e"], help="to compile for")
    tables = some_of("table", TABLES)
    parser.add_argument("--only", type=tables, default=list(TABLES), help="tables; default: all")
    chosen = parser.parse_args(argv)
    if importlib.util.find_spec("libtpu") is None:
        parser.error("libtpu is missing: pip install 'jattn[tpu]'")
    all_met = True
    count = len(chosen.chips) * sum(TABLES[name][2] for name in chosen.only)
    with progress(Console(stderr=True), "programs", count) as advance:
        for name in chosen.only:
            heading, rows, _ = TABLES[name]
            print(f"\n| {heading} |\n|{'---|' * len(heading.split(' | '))}", flush=True)
            for chip in chosen.chips:
                for row, met in rows(chip, lambda: advance(1)):
                    print(f"| {row} |", flush=True)
                    all_met &= met
    sys.exit(0 if all_met else 3)


if __name__ == "__main__":
    main()
