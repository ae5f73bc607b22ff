"""The toy experiment as a fixture, a short way to train it, and stores to train it in."""

import contextlib
import functools
import importlib.util
from pathlib import Path

import optax
import pytest

from jattn.training import Run, fit
from tests import stores

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def toy():
    spec = importlib.util.spec_from_file_location("toy_experiment", HERE / "toy_experiment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(toy):
    """`train(workdir, parallel=None, notes=None, stop_at=None, **options) -> FitResult`."""

    def run_fit(workdir, parallel=None, notes=None, stop_at=None, loss=None, **options):
        options = {"seeds": 2, "steps": 40, "batch_size": 8, "log_every": 7, **options}
        with Run.open(workdir, {}, name="toy", parallel=parallel) as run:
            if notes is not None:
                run.note = notes.append
            if stop_at is not None:
                log = run.log

                def log_and_stop(step, name, scalars):
                    log(step, name, scalars)
                    run.interrupted |= step >= stop_at

                run.log = log_and_stop
            return fit(
                toy.init,
                loss or toy.loss,
                toy.sample,
                optax.adam(0.05),
                run=run,
                name="line",
                record=toy.record,
                **options,
            )

    return run_fit


@pytest.fixture(scope="session")
def emulator(request):
    """`emulator(scheme)` is the environment that leads to a store's emulator, started once.

    One for the whole process: etils and fsspec keep their first connection to a store, and a second
    emulator, at another port, would never be asked.
    """
    stack = contextlib.ExitStack()
    # Not `yield`: the run-time check of types hides from pytest that a fixture is a generator.
    request.addfinalizer(stack.close)  # noqa: PT021
    return functools.cache(lambda scheme: stack.enter_context(stores.EMULATORS[scheme]())[1])


@pytest.fixture(scope="module", params=["gs", "s3"])
def store(request, emulator):
    """The scheme of a store whose emulator runs, to which everything in this process goes."""
    environment = stores.environment(emulator(request.param))
    environment.__enter__()
    request.addfinalizer(lambda: environment.__exit__(None, None, None))  # noqa: PT021
    return request.param


@pytest.fixture
def bucket(store):
    """The URL of a new bucket."""
    return stores.new_bucket(store)
