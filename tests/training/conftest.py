"""The toy experiment as a fixture, and a short way to train it."""

import importlib.util
from pathlib import Path

import optax
import pytest

from jattn.training import Run, fit

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
