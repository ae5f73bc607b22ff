"""A fusion of XLA on the CPU that gives wrong numbers, and how it is switched off."""

import functools
import importlib.util
import mmap
import os
import pathlib
import sys
from collections.abc import Sequence

YNN_FLAG = "xla_cpu_experimental_ynn_fusion_type"
COMPILERS = {"jaxlib": "libjax*", "libtpu": "libtpu.so"}  # Packages, and their libraries.


@functools.cache
def disable_ynn_fusion() -> str | None:
    """Switches off XLA's fusion of products with what is around them (YNNPACK), once a process.

    In jax 0.10 to 0.12 such a kernel may read memory that nothing was written to: chunked delta
    rules under `jit` showed it. XLA reads its flags when jax starts its backends, so `import jattn`
    calls this; a program that computes something before can set the same flag in XLA_FLAGS.

    Returns:
        None, or one line that says why it could not be done.

    Example:
        >>> disable_ynn_fusion()  # None: `import jattn` has switched it off
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if YNN_FLAG in flags:
        return None
    if _jax_has_started():
        return (
            "jax had started before `import jattn`, and XLA's fusion of products on the CPU, which "
            f"gives wrong numbers, is on: import jattn first, or set XLA_FLAGS=--{YNN_FLAG}="
        )
    if not is_known(YNN_FLAG):  # An unknown flag would end the process.
        return (
            "jattn cannot switch off XLA's fusion of products on the CPU, which gave wrong "
            f"numbers: this jaxlib or libtpu has no flag {YNN_FLAG}"
        )
    os.environ["XLA_FLAGS"] = f"{flags} --{YNN_FLAG}=".strip()
    return None


def is_known(flag: str, packages: Sequence[str] = tuple(COMPILERS)) -> bool:
    """Tells whether all compilers that will read XLA_FLAGS know a flag: jax has no list of them.

    Args:
        flag: its name.
        packages: those whose compilers will run, as far as they are installed.

    Example:
        >>> is_known("xla_backend_optimization_level"), is_known("xla_no_such_flag")
        (True, False)
    """
    # Between zeros, as constants are: descriptions keep the names of flags that are gone.
    constant = b"\0" + flag.encode() + b"\0"

    def holds(library: pathlib.Path) -> bool:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(constant) >= 0

    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            libraries = list(pathlib.Path(spec.origin).parent.glob(COMPILERS[package]))
            if libraries and not any(map(holds, libraries)):
                return False
    return True


def _jax_has_started() -> bool:
    """Whether backends are there; False where this version of jax cannot be asked."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    ask = getattr(bridge, "backends_are_initialized", None)
    return bool(ask()) if ask is not None else False
