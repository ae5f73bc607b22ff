"""Compiling for TPUs that are not there, in a process of its own.

libtpu can bring down the process it runs in, and reads its settings when it is loaded.
"""

import json
import subprocess
import sys

from experiments.tools.libtpu import environment

PREAMBLE = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

def mesh_of(topology, shape, names):
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return Mesh(np.array(devices[: int(np.prod(shape))]).reshape(shape), names)

def compile_on_one(topology, function, *arguments):
    mesh = mesh_of(topology, (1,), ("x",))
    own = NamedSharding(mesh, P())
    give = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return jax.jit(mapped).lower(*jax.tree.map(give, arguments)).compile()

def report(**facts):
    print("REPORT " + json.dumps(facts))
"""


def run(script: str, timeout: int = 900) -> list[dict]:
    """Runs a script after the preamble; returns what it gave to `report`.

    A test that calls it has the mark `libtpu`: without libtpu it is skipped.
    """
    process = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    lines = [line for line in process.stdout.splitlines() if line.startswith("REPORT ")]
    return [json.loads(line[len("REPORT ") :]) for line in lines]
