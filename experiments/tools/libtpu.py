"""libtpu on a machine without any TPU: its settings, and the cycles it estimates.

Nothing here imports jax, which reads some of the settings when it is imported.
"""

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# libtpu describes chips without looking for any, and several processes may load it.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def environment() -> dict[str, str]:
    """The environment of a process that loads libtpu: ours, with the settings above.

    libtpu ends a process that has flags of XLA which only compilers for the CPU know.
    """
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | SETTINGS


# The smallest topology that can be described, for each chip that the kernels are compiled for.
TOPOLOGIES = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "v5p": "v5p:2x2x1", "tpu7x": "tpu7x:2x2x1"}
# Where libtpu leaves its estimates, which it is told before it is loaded: in a process of its own.
DUMP = "--xla_jf_dump_static_llo_profile_to="
CYCLES = re.compile(r"estimated_cycles:\s*(\d+)")


def run_estimating(
    command: Sequence[str], timeout: float | None = None, estimate: bool = True
) -> tuple[subprocess.CompletedProcess[str], dict[str, int]]:
    """Runs a command that compiles for a TPU, with libtpu's estimates on.

    Args:
        command: what to run; what it prints is captured, since libtpu writes much.
        timeout: seconds.
        estimate: without, it compiles faster, and nothing is found.

    Returns:
        The finished process, and what `estimated_cycles` found. A negative return code: libtpu's
        estimator, which does not know every program, ended the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = environment()
        settings |= {"LIBTPU_INIT_ARGS": DUMP + folder} if estimate else {}
        done = subprocess.run(
            command, env=settings, check=False, capture_output=True, text=True, timeout=timeout
        )
        return done, estimated_cycles(folder)


def estimated_cycles(folder: str | Path) -> dict[str, int]:
    """Cycles of every part of the programs compiled for TPUs, by what libtpu left in a folder.

    They are estimates from the final schedule, not times.

    Args:
        folder: where it is.

    Returns:
        `{name of the kernel or fusion: cycles}`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = "cost { estimated_cycles: 5 } cost { estimated_cycles: 7 }"
        ...     name = "attend_forward.1_TPU v5 lite_static_llo_profile.textproto"
        ...     _ = (Path(folder) / name).write_text(text)
        ...     estimated_cycles(folder)
        {'attend_forward.1': 12}
    """
    found: Counter = Counter()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            numbers = CYCLES.findall(path.read_text(errors="ignore"))
            found[path.name.split("_TPU")[0]] += sum(int(n) for n in numbers)
    return dict(found)
