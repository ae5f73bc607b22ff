"""What a run of the tests costs: CPU seconds, and of each mechanism, in lines at its end."""

import collections
import os
import resource
import textwrap
import time
from typing import Any

import pytest

MECHANISMS, CONFORMANCE = (
    "tests/mechanisms/",
    "tests/mechanisms/test_conformance.py::test_conforms[",
)


class Costs:
    """A pytest plugin that adds up the CPU seconds of all workers and of their tests.

    Those of processes that tests start count with the worker. `JATTN_STARTED`, seconds since 1970,
    says when the command began that may have installed the package first.
    """

    def __init__(self):
        self.started = float(os.environ.get("JATTN_STARTED", time.time()))
        self.of_workers = 0.0
        self.of_tests: collections.Counter[str] = collections.Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        """Notes with a test's report how long it was computed."""
        before = seconds()
        try:
            return (yield)
        finally:
            item.user_properties.append(("cpu_seconds", seconds() - before))

    def pytest_runtest_logreport(self, report):
        """Collects what tests took."""
        if report.when == "call":
            self.of_tests[report.nodeid] += dict(report.user_properties).get("cpu_seconds", 0.0)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Collects what a worker took, its start included."""
        self.of_workers += getattr(node, "workeroutput", {}).get("cpu_seconds", 0.0)

    def pytest_sessionfinish(self, session):
        """Lets a worker say what it took."""
        output: Any = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["cpu_seconds"] = seconds()

    def lines(self) -> list[str]:
        """The figures of the whole run, for the process that started the workers."""
        own = time.process_time() if self.of_workers else seconds()  # workers are children, too
        wall = time.time() - self.started
        told = [f"{own + self.of_workers:.0f} CPU seconds in all, {wall:.0f} seconds by the clock"]
        files: collections.Counter[str] = collections.Counter()
        for test, cost in self.of_tests.items():
            files[test.partition("::")[0]] += cost
        if len(files) > 1:
            dearest = ", ".join(f"{name} {cost:.0f}" for name, cost in files.most_common(40))
            told += textwrap.wrap(f"CPU seconds of the dearest files: {dearest}", 100)
        cases: collections.Counter[str] = collections.Counter()
        for test, cost in self.of_tests.items():
            if test.startswith(CONFORMANCE):
                cases[test.removeprefix(CONFORMANCE).rpartition("-")[0]] += cost
        if len(cases) > 1:
            total = sum(cost for test, cost in self.of_tests.items() if test.startswith(MECHANISMS))
            each = ", ".join(f"{name} {cost:.1f}" for name, cost in cases.most_common())
            every, number = cases.total(), len(cases)
            told.append(
                f"{number} mechanisms: {total / number:.1f} CPU seconds each with their own tests, "
                f"conformance {every / number:.1f} each, {every:.0f} in all"
            )
            told += textwrap.wrap(each, 100)
        return told


def seconds() -> float:
    """CPU seconds of this process so far, and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
