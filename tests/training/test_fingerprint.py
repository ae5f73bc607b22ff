"""Fingerprints: of the program and not of how it is written; and what a fit does with them."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jattn.training import Parallel, Run, UsageError, fit, sweep
from jattn.training import fingerprint as prints
from jattn.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
ONE = Parallel(mesh={"data": 1, "model": 1})

# Programs that hold functions, addresses and places in files: callbacks, rules of derivatives,
# kernels, random keys, arrays.
SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax
import jattn
from jattn.training.fingerprint import code_fingerprint, program_fingerprint

@jax.custom_vjp
def double(x):
    return 2 * x

double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

def loss(w, x):
    y = jax.pure_callback(lambda x: 3 * np.asarray(x), jax.ShapeDtypeStruct((4,), jnp.float32), x)
    return jnp.sum(jax.nn.relu(double(w)) * y) + jnp.arange(4.0) @ jnp.asarray(np.ones(4))

def kernel(query):
    mask = jattn.masks.causal() & jattn.masks.sliding_window(8)
    return jattn.attend(query, query, query, mask=mask, implementation="pallas").sum()

def update(w):
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.1, 9))
    return optimizer.update(w, optimizer.init(w), w)

ones = jnp.ones(4)
print(program_fingerprint(loss, ones, ones))
print(program_fingerprint(jax.value_and_grad(loss), ones, ones))
print(program_fingerprint(jax.grad(kernel), jnp.ones((1, 32, 2, 8))))
print(program_fingerprint(update, ones))
print(program_fingerprint(lambda key: jax.random.normal(key, (3,)), jax.random.key(0)))
print(code_fingerprint(update), code_fingerprint(kernel))
"""


def test_is_the_same_in_every_process():
    def out(seed, devices, before=""):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        # Elsewhere in its file, and after its parts have been traced already.
        command = [sys.executable, "-c", before + "\n\n" + SCRIPT * (2 if before else 1)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    one, two = out("1", 1), out("2", 4, before="x = object()")
    assert len(set(one)) == 6
    assert two == one * 2


def shifted(by, x):
    return x + by


DATA = np.arange(6.0, dtype=np.float32)
OTHER_DATA = DATA + (DATA == 3)  # one number differs


@jax.custom_jvp
def bent(x):
    return x


bent.defjvp(lambda primals, tangents: (primals[0], 3 * tangents[0]))


def sine_first(x):
    sine, cosine = jnp.sin(x), jnp.cos(x)
    return sine - 2 * cosine


def cosine_first(x):
    cosine, sine = 2 * jnp.cos(x), jnp.sin(x)
    return sine - cosine


def prints_sine_first(x):
    jax.debug.callback(print, jnp.sin(x), ordered=True)
    jax.debug.callback(print, jnp.cos(x), ordered=True)
    return x


def prints_cosine_first(x):
    jax.debug.callback(print, jnp.cos(x), ordered=True)
    jax.debug.callback(print, jnp.sin(x), ordered=True)
    return x


SAME = {
    "names": (lambda x: x + 1, lambda some_other_name: some_other_name + 1),
    "jitted names": (jax.jit(lambda x: x * 2), jax.jit(lambda z: z * 2)),
    "bound early": (functools.partial(shifted, 2.0), lambda x: shifted(2.0, x)),
    "order of independent steps": (sine_first, cosine_first),
    "copies of data": (lambda x: x.sum() * DATA, lambda x: x.sum() * DATA.copy()),
}
APART = {
    "constant": (lambda x: x + 1, lambda x: x + 2),
    "small constant": (lambda x: x * 1.0, lambda x: x * (1.0 + 2.0**-20)),
    "operation": (jnp.sin, jnp.cos),
    "data": (lambda x: x.sum() * DATA, lambda x: x.sum() * OTHER_DATA),
    "data in a loop": tuple(
        lambda x, d=d: jax.lax.fori_loop(0, 2, lambda i, y: y + jnp.asarray(d)[i], x)
        for d in (DATA, OTHER_DATA)
    ),
    "order of operands": (lambda x: x - jnp.sin(x), lambda x: jnp.sin(x) - x),
    "names of results": (lambda x: {"a": x}, lambda x: {"b": x}),
    "precision": (lambda x: x.astype(jnp.bfloat16), lambda x: x.astype(jnp.float16)),
    "order of effects": (prints_sine_first, prints_cosine_first),
    "operand of a step": (sine_first, lambda x: jnp.sin(x) - 2 * jnp.cos(2 * x)),
    "derivative": (jax.grad(lambda x: x.sum()), jax.grad(lambda x: bent(x).sum())),
}


@pytest.mark.parametrize(
    ("pair", "same"),
    [*((pair, True) for pair in SAME.values()), *((pair, False) for pair in APART.values())],
    ids=[*SAME, *APART],
)
def test_is_of_the_program(pair, same):
    one, other = (prints.program_fingerprint(f, jnp.ones(3)) for f in pair)
    assert (one == other) is same


def helper(x):
    return x + 1


def calls_helper(x):
    return helper(x)


def test_byte_code_is_followed_into_what_is_called(monkeypatch):
    before = prints.code_fingerprint(calls_helper)
    assert before == prints.code_fingerprint(calls_helper)
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: x + 2)
    helper.__module__ = __name__
    assert prints.code_fingerprint(calls_helper) != before
    # An attribute that has the name of a function here is not that function.
    asks_attribute = lambda x: x.helper
    asked = prints.code_fingerprint(asks_attribute)
    monkeypatch.undo()
    assert prints.code_fingerprint(asks_attribute) == asked
    inner = [lambda x, k=k: x + k for k in (1, 1, 2)]
    prints_of = [prints.code_fingerprint(lambda x, f=f: f(x)) for f in inner]
    assert prints_of[0] == prints_of[1] != prints_of[2]


def sample(key):
    x = jax.random.normal(key, (2,))
    return x, x @ jnp.array([1.0, -1.0])


def loss(w, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


HONEST = {
    "init": lambda key: jnp.zeros(2),
    "loss": loss,
    "sample": sample,
    "optimizer": optax.sgd(0.1),
    "record": None,
}
# What changes, and what is said to have changed.
CHANGES = {
    "loss": ({"loss": lambda w, batch: loss(w, batch) + 100}, "loss"),
    "rate": ({"optimizer": optax.sgd(1e-6)}, "optimizer"),
    "optimizer": ({"optimizer": optax.adam(0.1)}, "optimizer"),
    "sampler": ({"sample": lambda key: (sample(key)[0], 2 * sample(key)[1])}, "sampler"),
    "init": ({"init": lambda key: jnp.ones(2)}, "initialisation"),
    "record": ({"record": lambda w: {"first": w[0]}}, "record"),
    "two": ({"loss": lambda w, b: 2 * loss(w, b), "optimizer": optax.sgd(0.2)}, "loss, optimizer"),
}


def train(folder, **changed):
    parts = HONEST | changed
    record = parts.pop("record")
    with Run.open(folder, {}, name="toy", parallel=ONE) as run:
        sizes = dict(seeds=1, steps=4, batch_size=4, log_every=4)
        return fit(*parts.values(), run=run, name="line", record=record, **sizes)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_changed_code_is_refused_and_said(tmp_path, capsys):
    first = train(tmp_path)
    before = contents(tmp_path)
    for changed, said in CHANGES.values():
        with pytest.raises(UsageError, match=rf"are of other code \(changed: {said}\); use"):
            train(tmp_path, **changed)
        assert "damaged" not in capsys.readouterr().out
    assert contents(tmp_path) == before
    # Written otherwise, it is the same program.
    again = train(tmp_path, loss=lambda weights, pair: loss(weights, pair))
    np.testing.assert_array_equal(again.params, first.params)


def test_fingerprints_of_an_earlier_version_are_not_compared(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(prints, "VERSION", "1")
        first = train(tmp_path)
    capsys.readouterr()
    np.testing.assert_array_equal(train(tmp_path).params, first.params)
    said = capsys.readouterr().out
    assert "cannot be checked: it was made with fingerprints 1, now 2" in said
    assert said.count("\n") == 1
    now = prints.described({"loss": "a"})
    before = {**now, "made_with": {k: v for k, v in now["made_with"].items() if k[0] != "f"}}
    assert prints.changes(before, now) == (
        "it was made with fingerprints of an earlier version, now 2"
    )


def test_checkpoints_without_fingerprints_say_so(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        save = Checkpoints.save

        def as_before(self, *args):
            self._code = None
            save(self, *args)

        patch.setattr(Checkpoints, "save", as_before)
        first = train(tmp_path)
    capsys.readouterr()
    np.testing.assert_array_equal(train(tmp_path).params, first.params)
    said = capsys.readouterr().out
    assert said.count("cannot be checked: it has no fingerprint") == said.count("\n") == 1
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"another model or optimizer \(opt_state.0.count was abs"):
        train(tmp_path, optimizer=optax.adam(0.1))
    assert contents(tmp_path) == before


def test_results_that_are_kept_are_of_the_same_code(tmp_path, capsys):
    def run_with(compute, function, cells=(1.0, 2.0)):
        with Run.open(tmp_path, {}, name="toy", parallel=ONE) as run:
            run.cached("one", compute)
            return sweep(run, "cells", function, cells)["y"].tolist()

    honest = (lambda: {"x": np.ones(2)}, lambda x: {"y": 2 * x})
    assert run_with(*honest) == [2.0, 4.0]
    assert run_with(lambda: {"x": np.ones(2)}, lambda z: {"y": 2 * z}) == [2.0, 4.0]
    before = contents(tmp_path)
    with pytest.raises(
        UsageError, match=r"one\.npz was computed by other code \(changed: function\)"
    ):
        run_with(lambda: {"x": np.ones(3)}, honest[1])
    with pytest.raises(UsageError, match=r"cells_0\.npz was computed by other code \(changed: fun"):
        run_with(honest[0], lambda x: {"y": 3 * x})
    with pytest.raises(
        UsageError, match=r"cells_1\.npz was computed by other code \(changed: cell"
    ):
        run_with(*honest, cells=(1.0, 5.0))
    assert contents(tmp_path) == before
    np.savez(tmp_path / "arrays" / "one.npz", x=np.ones(2))  # as an earlier version did
    capsys.readouterr()
    run_with(*honest)
    assert "one: whether its code changed" in capsys.readouterr().out
