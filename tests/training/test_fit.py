"""The fit loop: its definition, its equality over strategies, and stopping and going on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as Spec

from jattn.training import Interrupted, NonFiniteError, Parallel, Run, UsageError, fit
from jattn.training.parallel import Layout

DATA_8 = {"data": 8, "model": 1}
ONE = Parallel(mesh={"data": 1, "model": 1})


def assert_same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def by_hand(toy, *, seeds, steps, batch_size, log_every, seed):
    """The fit as its docstring defines it: one seed, one step and one example at a time."""
    losses, finals = [], []
    optimizer = optax.adam(0.05)
    for i in range(seeds):
        first, data = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        params = toy.init(first)
        state = optimizer.init(params)
        history = []
        for n in range(steps):
            key = jax.random.fold_in(data, n)
            examples = [toy.sample(jax.random.fold_in(key, j)) for j in range(batch_size)]
            batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *examples)
            value, gradient = jax.value_and_grad(toy.loss)(params, batch)
            updates, state = optimizer.update(gradient, state)
            params = optax.apply_updates(params, updates)
            history.append(float(value))
        starts = range(0, steps, log_every)
        means = [np.mean(history[n : min(n + log_every, steps)]) for n in starts]
        losses.append([history[0], *means])
        finals.append(params)
    return np.array(losses).T, jax.tree.map(lambda *leaves: np.stack(leaves), *finals)


def test_is_what_its_docstring_says(toy, train, tmp_path):
    sizes = {"seeds": 2, "steps": 5, "batch_size": 3, "log_every": 2, "seed": 7}
    result = train(tmp_path, ONE, **sizes)
    losses, params = by_hand(toy, **sizes)
    np.testing.assert_array_equal(result.steps, [0, 2, 4, 5])
    np.testing.assert_allclose(result.history["loss"], losses, rtol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), result.params, params)
    np.testing.assert_array_equal(result.history["w"][-1], result.params["w"])
    assert result.history["w"].shape == (4, 2, 4)


@pytest.mark.smoke
@pytest.mark.parametrize(("seeds", "batch_size"), [(8, 6), (3, 16)], ids=["seeds", "batch"])
def test_strategies_agree(train, tmp_path, seeds, batch_size):
    def losses(name, parallel):
        sizes = {"seeds": seeds, "batch_size": batch_size}
        return train(tmp_path / name, parallel, **sizes).history["loss"]

    one = losses("one", ONE)
    assert one[-1].mean() < 0.7 * one[0].mean()
    for strategy in ("jit", "shard_map", "pmap"):
        curve = losses(strategy, Parallel(strategy, DATA_8))
        np.testing.assert_allclose(curve, one, atol=1e-5, rtol=1e-5, err_msg=strategy)


def test_model_axis_divides_parameters(train, tmp_path):
    one = train(tmp_path / "one", ONE)
    two = train(tmp_path / "two", Parallel(mesh={"data": 2, "model": 4}))
    np.testing.assert_allclose(two.history["loss"], one.history["loss"], atol=1e-5, rtol=1e-5)
    layout = Parallel(mesh={"data": 2, "model": 4}).layout(seeds=2, batch_size=8)
    assert layout.sharding((2, 3, 8, 4), True).spec == Spec("data", None, "model", None)
    assert layout.sharding((2, 3, 5), True).spec == Spec("data", None, None)
    assert layout.sharding((2, 8), False).spec == Spec("data", None)


@pytest.mark.smoke
def test_stopped_and_resumed_is_the_same_bits(train, tmp_path):
    whole = train(tmp_path / "whole", ONE)
    parts = {"steps_per_dispatch": 5}
    for stop_at in (7, 21):
        with pytest.raises(Interrupted):
            train(tmp_path / "parts", ONE, stop_at=stop_at, **parts)
    notes = []
    resumed = train(tmp_path / "parts", ONE, notes=notes, **parts)
    assert notes == ["line: going on from step 25"]
    assert_same_bits(resumed, whole)
    lines = [(tmp_path / d / "metrics.jsonl").read_bytes() for d in ("whole", "parts")]
    assert lines[0] == lines[1]
    assert lines[0].count(b"\n") == len(whole.steps)


def test_finished_fit_is_read_back(train, tmp_path, monkeypatch):
    def untouched(*_):
        raise AssertionError("trained again")

    first = train(tmp_path, ONE)
    monkeypatch.setattr(Layout, "compile", untouched)
    assert_same_bits(train(tmp_path, ONE), first)
    # The same checkpoint serves another placement.
    assert_same_bits(train(tmp_path, Parallel(mesh={"data": 2, "model": 4})), first)


def test_compiles_once_and_reuses_buffers(toy, train, tmp_path):
    compiled = []

    def listen(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    train(tmp_path / "warm", ONE)  # small helpers are compiled once a process
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        counts = []
        for dispatch in (20, 3):
            compiled.clear()
            train(tmp_path / str(dispatch), ONE, steps_per_dispatch=dispatch)
            counts.append(len(compiled))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[0] == counts[1] > 0

    layout = ONE.layout(seeds=2, batch_size=8)
    placed = layout.sharding((2,), False)
    shapes = {"w": jax.ShapeDtypeStruct((2,), jnp.float32, sharding=placed)}
    double = layout.compile(lambda s, start, stop: jax.tree.map(lambda x: 2 * x, s), shapes)
    state = {"w": jax.device_put(jnp.ones(2), placed)}
    np.testing.assert_array_equal(double(state, 0, 1)["w"], [2.0, 2.0])
    assert state["w"].is_deleted()


def test_not_finite_stops_and_is_never_saved(toy, train, tmp_path):
    def blows_up(params, batch):  # becomes NaN once the offset has grown, at different steps
        return toy.loss(params, batch) / jnp.where(params["b"] > 0.7, 0.0, 1.0)

    with pytest.raises(NonFiniteError, match=r"fit line: .* at step \d+ of seed [01]$") as caught:
        train(tmp_path, ONE, loss=blows_up, checkpoint_every=5)
    saved = sorted(int(p.name) for p in (tmp_path / "checkpoints" / "line").iterdir())
    assert saved
    assert max(saved) <= caught.value.step


def test_spoilt_parameters_are_seen_behind_a_finite_loss(toy, tmp_path):
    spoilt = optax.sgd(float("inf"))
    run = Run.open(tmp_path, {}, name="toy")
    with run, pytest.raises(NonFiniteError, match="at step 0 of seed 0"):
        fit(
            toy.init,
            toy.loss,
            toy.sample,
            spoilt,
            run=run,
            name="line",
            seeds=1,
            steps=1,
            batch_size=8,
        )
    assert not list((tmp_path / "checkpoints" / "line").iterdir())


def test_a_name_serves_one_fit(toy, tmp_path):
    def again():
        problem = (toy.init, toy.loss, toy.sample, optax.sgd(0.1))
        fit(*problem, run=run, name="line", seeds=1, steps=1, batch_size=8)

    with Run.open(tmp_path, {}, name="toy") as run:
        again()
        with pytest.raises(UsageError, match="this run has a fit 'line' already"):
            again()


def test_bad_arguments(toy, train, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="steps: expected at least 1, got 0"):
        train(tmp_path, steps=0)
    with pytest.raises(UsageError, match=r"seeds=3 nor batch_size=6 divides over .* 8 devices"):
        train(tmp_path, Parallel(mesh=DATA_8), seeds=3, batch_size=6)
    with monkeypatch.context() as patch:
        patch.setattr(toy, "record", lambda params: {"loss": params["b"]})
        with pytest.raises(UsageError, match="'loss' is noted already"):
            train(tmp_path)
    with pytest.raises(UsageError, match="is 32 devices; there are 8"):
        Parallel(mesh={"data": 16, "model": 2}).layout(seeds=1, batch_size=1)
    with pytest.raises(UsageError, match="expected one of 'jit', 'shard_map', 'pmap'"):
        Parallel("spmd")
    with pytest.raises(UsageError, match="shard_map divides data only, got model=2"):
        Parallel("shard_map", {"data": -1, "model": 2})
    with pytest.raises(UsageError, match=r"parallel\.mesh: expected"):
        Parallel(mesh={"data": 0})
