"""Shared test set-up: runtime shape checks, a compilation cache, eight simulated devices."""

import itertools
import os
from pathlib import Path

# Before jax is imported: eight CPU devices, for the tests of parallel training; and no
# optimisation of programs, for most run once, for less time than it takes to make them faster.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook(["jattn", "tests"], "beartype.beartype")

from jattn.training.parallel import keep_cpu_products_apart  # noqa: E402  behind the hook

keep_cpu_products_apart()

CACHE = os.path.join(os.path.dirname(os.path.dirname(__file__)), ".jax_cache")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

MAPPINGS = Path("/proc/self/maps")
_tests_run = itertools.count(1)


def pytest_runtest_teardown():
    """Drops compiled programs before there are too many.

    Each takes memory mappings, of which Linux grants a process 65530; past them LLVM crashes.
    """
    if next(_tests_run) % 20 == 0 and MAPPINGS.exists():
        with MAPPINGS.open("rb") as lines:
            if sum(1 for _ in lines) > 20_000:
                jax.clear_caches()


@pytest.fixture
def plain_checks():
    """Switches the jaxtyping check off, so that a test meets the error a user would meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield
