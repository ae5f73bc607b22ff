"""Estimated cycles (static) of the attention kernels on TPUs, next to jax's flash attention.

    python -m experiments.tpu_cycles --chips=v5e,v6e

libtpu compiles each program for the chip, on any machine, and estimates the cycles of every part
from its final schedule. These are estimates, not times: right in ranking, optimistic where memory
decides. Causal, batch 1, 2 heads, 2048 tokens, bfloat16. Ours takes `[b, t, h, d]` and pays for
the change of layout; jax's takes `[b, h, t, d]`, and has the better of two sizes of blocks.
"""

import os
import subprocess
import sys
import tempfile

from absl import app, flags

from jattn.training.planning import estimated_cycles

CHIPS = flags.DEFINE_list("chips", ["v5e", "v6e"], "Chips to compile for.")

PREAMBLE = """
import sys, numpy as np, jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

chip, dim, length, heads, gradient = sys.argv[1], int(sys.argv[2]), 2048, 2, sys.argv[3] == "both"

def compile_it(forward, shape):
    count = 3
    if gradient:
        only, count = forward, 4
        forward = lambda d, q, k, v: jax.vjp(only, q, k, v)[1](d)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip}:2x2").devices
    mesh = Mesh(np.array(devices[:1]), ("x",))
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, P()))
    mapped = jax.shard_map(forward, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    jax.jit(mapped).lower(*[x] * count).compile()
"""
OURS = """
from jattn import attend, masks
mask = masks.sliding_window(256) if len(sys.argv) > 4 else masks.causal()
compile_it(lambda q, k, v: attend(q, k, v, mask=mask, implementation="pallas"),
           (1, length, heads, dim))
"""
FLASH = """
from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, flash_attention
n = int(sys.argv[4])
names = ("block_q", "block_k_major", "block_k", "block_q_major_dkv", "block_k_major_dkv",
         "block_k_dkv", "block_q_dkv", "block_k_major_dq", "block_k_dq", "block_q_dq")
sizes = BlockSizes(block_b=1, **{name: n for name in names})
compile_it(lambda q, k, v: flash_attention(q, k, v, causal=True, sm_scale=dim**-0.5,
                                           block_sizes=sizes), (1, heads, length, dim))
"""


def cycles(script: str, *arguments: object) -> tuple[int, int]:
    """Estimated cycles of the kernels, and of everything, of one program."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "LIBTPU_INIT_ARGS": f"--xla_jf_dump_static_llo_profile_to={folder}",
        }
        subprocess.run(
            [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)],
            env=os.environ | settings,
            check=True,
            capture_output=True,
            timeout=300,
        )
        found = estimated_cycles(folder)
    kernels = sum(n for name, n in found.items() if name.startswith("attend_"))
    return kernels, sum(found.values())


def main(_: list[str]) -> None:
    """The command line; see the module's docstring."""
    print("| chip | d | pass | kernels | with layouts | jax flash | ratio |")
    print("|---|---|---|---|---|---|---|")
    for chip in CHIPS.value:
        for dim in (128, 64):
            for kind, name in (("forward", "forward"), ("both", "forward + backward")):
                kernels, total = cycles(OURS, chip, dim, kind)
                flash = min(cycles(FLASH, chip, dim, kind, n)[1] for n in (512, 1024))
                row = (kernels, total, flash)
                numbers = " | ".join(f"{n:,}" for n in row)
                print(f"| {chip} | {dim} | {name} | {numbers} | {total / flash:.2f} |", flush=True)
        dense, windowed = cycles(OURS, chip, 128, "forward"), cycles(OURS, chip, 128, "forward", 1)
        print(f"| {chip} | 128 | forward, window of 256 | {windowed[0]:,} | {windowed[1]:,} | | "
              f"{windowed[0] / dense[0]:.2f} of causal |", flush=True)  # fmt: skip


if __name__ == "__main__":
    app.run(main)
