"""Shared test set-up: runtime shape checks, a compilation cache, eight simulated devices."""

import importlib.util
import itertools
import os
import resource
from collections import Counter
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

from tests.costs import Costs

jaxtyping.install_import_hook(["jattn", "tests"], "beartype.beartype")

given = "XLA_FLAGS" in os.environ  # jattn adds a flag of its own when it is imported.
from jattn.xla_flags import is_known  # noqa: E402  behind the hook

# Before jax starts: eight CPU devices, for the tests of parallel training; and programs that are
# made in a fifth of the time, for most run once, for less time than it takes to make them faster.
QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",  # by way of MLIR
    "xla_cpu_parallel_codegen_split_count": 1,
}
if not given:
    quick = [f"--{k}={v}" for k, v in QUICK_TO_COMPILE.items() if is_known(k, ["jaxlib"])]
    devices = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), devices, *quick])

CACHE = os.path.join(os.path.dirname(os.path.dirname(__file__)), ".jax_cache")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

NEEDS_LIBTPU = "needs libtpu: make test-tpu EXTRAS=dev,tpu"
MAPPINGS, RESIDENT = Path("/proc/self/maps"), Path("/proc/self/statm")
_tests_run = itertools.count(1)


def pytest_configure(config):
    """Adds up what the run costs."""
    config.pluginmanager.register(Costs(), "costs")


def pytest_collection_modifyitems(items):
    """Skips what compiles for TPUs where there is nothing to compile with."""
    if importlib.util.find_spec("libtpu") is None:
        for item in items:
            if item.get_closest_marker("libtpu"):
                item.add_marker(pytest.mark.skip(reason=NEEDS_LIBTPU))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Says last what the run took, how many tests were skipped, why, and what would run them."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        for line in session.config.pluginmanager.get_plugin("costs").lines():
            reporter.write_line(line)
        reasons = Counter(
            report.longrepr[2].removeprefix("Skipped: ")
            for report in reporter.stats.get("skipped", ())
        )
        why = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        slow = "; slow tests: make test-all" if "not slow" in session.config.option.markexpr else ""
        reporter.write_line(f"{reasons.total()} skipped{': ' + why if why else ''}{slow}")
    return result


def pytest_runtest_teardown():
    """Drops compiled programs before there are too many, by memory or by memory mappings.

    Linux grants a process 65530 mappings, of which each program takes some; past them LLVM crashes.
    """
    if next(_tests_run) % 20 == 0 and MAPPINGS.exists():
        with MAPPINGS.open("rb") as lines:
            many = sum(1 for _ in lines) > 20_000
        pages = int(RESIDENT.read_text().split()[1])
        if many or pages * resource.getpagesize() > 1.5e9:
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
