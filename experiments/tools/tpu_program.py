"""One program of attention, compiled for one TPU in a process of its own, and its cycles.

    python -m experiments.tools.tpu_program '{"chip": "v5e", "dim": 128, "backward": true}'

Compiles it, or fails; `cycles` runs that and reads what libtpu estimates. The process is its own
because libtpu can bring down the one it is in, and reads its settings when it is loaded.

The estimates follow what a kernel decides from its place in the grid, and nothing else: a condition
on prefetched numbers counts as true, a loop bounded by them as never run. So masks here are bands,
whose tiles are arithmetic on the place, and not the ones that come with tables.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.tools.libtpu import TOPOLOGIES, run_estimating
from jattn import attend, masks
from jattn.attention import Blocks, scores

WINDOW = 256
MASKS = {"causal": masks.causal(), "window": masks.sliding_window(WINDOW)}
# What may come on top of plain attention: options of `attend`, and shapes of arrays among them.
EXTRAS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "plain": lambda h, t: {},
    "soft cap": lambda h, t: {"score_mod": scores.soft_cap(30.0)},
    "ALiBi": lambda h, t: {"score_mod": scores.alibi(h)},
    "sink": lambda h, t: {"sink": (h,)},
    "bias per key": lambda h, t: {"bias": (1, h, 1, t)},
    "full bias": lambda h, t: {"bias": (1, h, t, t)},
}


class TpuProgram(NamedTuple):
    """What to compile: batch 1, bfloat16 (biases and sinks float32), as many keys as queries.

    Attributes:
        chip: of `TOPOLOGIES`.
        dim: of heads.
        backward: forward and backward, or forward alone.
        mask: of `MASKS`.
        extra: of `EXTRAS`.
        blocks: numbers of a `Blocks`; None for the table's.
        flash: if not 0, jax's flash attention instead, with blocks of so many.
        transposed: whether jax's takes `[b, t, h, d]` as ours does, and transposes it.
        length, heads: tokens and heads.
    """

    chip: str
    dim: int
    backward: bool = False
    mask: str = "causal"
    extra: str = "plain"
    blocks: tuple[int, ...] | None = None
    flash: int = 0
    transposed: bool = False
    length: int = 2048
    heads: int = 2


def cycles(program: TpuProgram, timeout: float = 600) -> dict[str, int] | None:
    """Estimated cycles of each kernel and fusion; None where the program cannot be estimated."""
    done, found = run_estimating(_command(program), timeout)
    return found if done.returncode == 0 and found else None


def compiles(program: TpuProgram, timeout: float = 600) -> bool:
    """Whether the compiler takes it: it fits the chip's memory, and nothing in it is unknown."""
    return run_estimating(_command(program), timeout, estimate=False)[0].returncode == 0


def _command(program: TpuProgram) -> list[str]:
    return [sys.executable, "-m", "experiments.tools.tpu_program", json.dumps(program._asdict())]


def compile_program(program: TpuProgram) -> None:
    """Compiles it for the first chip of its topology."""
    shape = (1, program.length, program.heads, program.dim)
    if program.flash and not program.transposed:
        shape = (1, program.heads, program.length, program.dim)
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=TOPOLOGIES[program.chip]
    ).devices
    mesh = Mesh(np.array(devices[:1]), ("x",))
    own = NamedSharding(mesh, PartitionSpec())
    options = EXTRAS[program.extra](program.heads, program.length)
    shapes = {name: x for name, x in options.items() if isinstance(x, tuple)}
    give = jax.ShapeDtypeStruct
    arrays = {n: give(shape, jnp.bfloat16, sharding=own) for n in ("query", "key", "value")}
    arrays |= {name: give(x, jnp.float32, sharding=own) for name, x in shapes.items()}
    fixed = {name: x for name, x in options.items() if name not in shapes}
    implementation = Blocks(*program.blocks) if program.blocks else "pallas"

    def forward(arrays):
        if program.flash:
            return _flash(program, *arrays.values())
        mask = MASKS[program.mask]
        return attend(**arrays, **fixed, mask=mask, implementation=implementation)

    def both(arrays, d_out):
        return jax.vjp(forward, arrays)[1](d_out)

    arguments = (arrays, arrays["query"]) if program.backward else (arrays,)
    function = both if program.backward else forward
    alone = PartitionSpec()
    mapped = jax.shard_map(function, mesh=mesh, in_specs=alone, out_specs=alone, check_vma=False)
    jax.jit(mapped).lower(*arguments).compile()


def _flash(program: TpuProgram, query, key, value):
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, flash_attention

    names = (name for name in BlockSizes.__dataclass_fields__ if name != "block_b")
    sizes = BlockSizes(block_b=1, **dict.fromkeys(names, program.flash))
    turn = (lambda x: jnp.swapaxes(x, 1, 2)) if program.transposed else lambda x: x
    scale = program.dim**-0.5
    out = flash_attention(
        turn(query), turn(key), turn(value), causal=True, sm_scale=scale, block_sizes=sizes
    )
    return turn(out)


if __name__ == "__main__":
    compile_program(TpuProgram(**json.loads(sys.argv[1])))
