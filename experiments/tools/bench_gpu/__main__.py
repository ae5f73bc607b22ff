"""Checks, times, prints and writes; see the package's docstring."""

import datetime
import functools
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib

from experiments.flags import Parser, count, counts
from experiments.tools.bench_gpu import __doc__ as description
from experiments.tools.bench_gpu import attention, recurrences, suite
from experiments.tools.bench_gpu.timing import line
from jattn.attention.pallas_gpu import pallas_gpu
from jattn.attention.reference import reference

TOLERANCE = 1e-2  # Relative, root mean square; bfloat16 alone gives 2e-3 to 4e-3.
OUTPUT = Path(__file__).parents[3] / "docs" / "gpu.json"
BOTH: tuple[Any, ...] = (False, True)  # Without gradients, and with them.
DRIVER = Path("/proc/driver/nvidia/version")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("tools.bench_gpu", description)
    parser.add_argument("--lengths", type=counts, help="tokens t = s")
    parser.add_argument("--dims", type=counts, help="head sizes d = e")
    parser.add_argument("--repeats", type=count, help="runs of each contender, in turn; median")
    parser.add_argument("--minutes", type=count, default=9, help="then rows are left out")
    parser.add_argument("--output", type=Path, help="where to write what was found")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, at toy sizes")
    chosen = parser.parse_args(argv)
    toy = chosen.rehearse
    if jax.default_backend() != "gpu" and not toy:
        print(f"No GPU here (JAX sees {jax.default_backend()} only): nothing was measured.")
        return 0
    lengths = chosen.lengths or ([16] if toy else [4096, 1024, 16384, 2048, 8192])
    dims = chosen.dims or ([8] if toy else [128, 64, 256])
    repeats = chosen.repeats or (1 if toy else 20)
    tokens = 32 if toy else attention.TOKENS
    until = time.monotonic() + 60 * chosen.minutes
    found: dict[str, Any] = {"device": _described(), "checks": [], "left_out": 0}
    print(", ".join(f"{key} {value}" for key, value in found["device"].items()) + "\n")
    wrong = 0
    for name, distance_of in _checks(dims, toy):
        try:
            distance = distance_of()
        except NotImplementedError as reason:
            print(f"{name}: {reason}", flush=True)
            continue
        wrong += not distance < TOLERANCE
        found["checks"].append({"name": name, "distance": distance})
        print(f"{name}: {distance:.1e} from float32", flush=True)
    tables = (
        ("attention", attention.HEAD, _attention_rows(lengths, dims, repeats, tokens, toy)),
        ("recurrence", recurrences.HEAD, _recurrent_rows(dims, repeats, tokens, toy)),
    )
    # In turn, so that both have rows if the time runs out.
    rows: dict[str, list[tuple]] = {name: [] for name, _, _ in tables}
    waiting = itertools.zip_longest(*(calls for _, _, calls in tables))
    for call in filter(None, itertools.chain.from_iterable(waiting)):
        if time.monotonic() > until:
            found["left_out"] += 1
            continue
        row = call()
        rows["recurrence" if len(row) == len(recurrences.HEAD) else "attention"].append(row)
        print(line(row), flush=True)
    for name, head, _ in tables:
        print("\n" + line(head) + "\n" + "|---" * len(head) + "|")
        for row in rows[name]:
            print(line(row))
        found[name] = [dict(zip(head, row, strict=True)) for row in rows[name]]
    if found["left_out"]:
        print(f"\n{found['left_out']} rows left out: {chosen.minutes} minutes were over")
    output = chosen.output or (None if toy else OUTPUT)
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n")
        print(f"written to {output}")
    return 3 if wrong else 0


def _checks(dims: Sequence[int], toy: bool) -> Iterator[tuple[str, Callable[[], float]]]:
    for name in list(suite.CASES)[: 2 if toy else None]:
        yield f"options: {name}", functools.partial(suite.distance, name, _kernel())
    for variant in attention.VARIANTS[: 1 if toy else None]:
        for d in dims:
            yield f"{variant.name}, d={d}", functools.partial(attention.apart, variant, d)
    for name in list(recurrences.RECURRENCES)[: 1 if toy else None]:
        for d in dims:
            yield f"{name}, d={d}", functools.partial(recurrences.recurrent_apart, name, d)


def _kernel() -> Callable[..., Any]:
    """The attention kernels; where there is no GPU, the definition in their place."""
    return pallas_gpu if jax.default_backend() == "gpu" else reference


def _attention_rows(lengths, dims, repeats, tokens, toy) -> Iterator[Callable[[], tuple]]:
    variants: Any = attention.VARIANTS[: 2 if toy else None]
    for t, d, variant, gradients in itertools.product(lengths, dims, variants, BOTH):
        yield functools.partial(attention.row, variant, t, d, gradients, repeats, tokens)


def _recurrent_rows(dims, repeats, tokens, toy) -> Iterator[Callable[[], tuple]]:
    names: Any = list(recurrences.RECURRENCES)[: 2 if toy else None]
    for d, name, gradients in itertools.product(dims, names, BOTH):
        yield functools.partial(recurrences.recurrent_row, name, d, gradients, repeats, tokens)


def _described() -> dict[str, str]:
    driver = re.search(r"\d+\.\d+\.\d+", DRIVER.read_text()) if DRIVER.exists() else None
    return {
        "kind": jax.devices()[0].device_kind,
        "driver": driver[0] if driver else "unknown",
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
