"""`recur` with an erase key, with rates per value channel, and with more values than queries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.recurrence import recur, recur_along_axis

B, T, H, D, E = 2, 11, 4, 3, 5
run = jax.jit(recur, static_argnames=("mode", "chunk_size", "return_state", "implementation"))


@pytest.fixture
def case(x64):
    keys = jax.random.split(jax.random.key(0), 8)
    draw = lambda n, *shape: jax.random.normal(keys[n], shape, jnp.float64)
    return {
        "query": draw(0, B, T, H, D),
        "key": draw(1, B, T, H, D) / 2,
        "value": draw(2, B, T, H, E),
        "decay": -jnp.abs(draw(3, B, T, H, D)) / 4,
        "value_decay": -jnp.abs(draw(4, B, T, H, E)) / 4,
        "beta": jax.nn.sigmoid(draw(5, B, T, H, E)),
        "erase_key": draw(6, B, T, H, D) / 2,
        "initial_state": draw(7, B, H, D, E),
    }


def loop(case):
    """The definition, entry by entry, with whatever of the arguments there are."""
    arrays = {name: np.asarray(array) for name, array in case.items()}
    state = arrays["initial_state"].copy()
    out = np.zeros((B, T, state.shape[1], E))
    for t in range(T):
        for name, axis in (("decay", -1), ("value_decay", -2)):
            if name in arrays:
                rate = np.exp(arrays[name][:, t])
                rate = rate[..., None] if rate.ndim == 2 else rate
                state = state * np.expand_dims(rate, axis)
        write = arrays["value"][:, t]
        if "beta" in arrays:
            erased = arrays.get("erase_key", arrays["key"])[:, t]
            beta = arrays["beta"][:, t]
            beta = beta[..., None] if beta.ndim == 2 else beta
            write = beta * (write - np.einsum("bhd,bhde->bhe", erased, state))
        state = state + arrays["key"][:, t, :, :, None] * write[:, :, None]
        out[:, t] = np.einsum("bhd,bhde->bhe", arrays["query"][:, t], state)
    return out, state


def of_head(rates):
    return rates[..., 0]


CASES = {
    "erase key": ("erase_key", "beta/head"),
    "erase key, decay of heads": ("erase_key", "beta/head", "decay/head"),
    "erase key, decay of channels": ("erase_key", "beta/head", "decay"),
    "strength of value channels": ("beta",),
    "decay of value channels": ("value_decay",),
    "all": ("erase_key", "beta", "decay", "value_decay"),
    "all but keys' decay": ("erase_key", "beta", "decay/head", "value_decay"),
}


def chosen(case, names):
    always = ("query", "key", "value", "initial_state")
    found = {name: case[name] for name in always}
    for name in names:
        field, _, per = name.partition("/")
        found[field] = of_head(case[field]) if per else case[field]
    return found


@pytest.mark.parametrize("name", CASES)
def test_modes_follow_the_definition(case, name):
    given = chosen(case, CASES[name])
    out, state = loop(given)
    for options in ({"mode": "scan"}, {"mode": "chunk", "chunk_size": 4}, {"mode": "parallel"}):
        found, last = run(**given, **options, return_state=True)
        np.testing.assert_allclose(found, out, atol=1e-10)
        np.testing.assert_allclose(last, state, atol=1e-10)


def test_gradients_are_those_of_the_scan(case):
    given = chosen(case, CASES["all"])

    def loss(given, **options):
        out, state = recur(**given, **options, return_state=True)
        return (out**2).sum() + (state**3).sum()

    grads = lambda **options: jax.jit(jax.grad(functools.partial(loss, **options)))(given)
    expected, found = grads(mode="scan"), grads(mode="chunk", chunk_size=4)
    for name in given:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9 * scale)


def test_fewer_queries_than_values_are_repeated(case):
    """Two queries and keys for four values, one erase key for all; rates are of each head."""
    few = {name: case[name][:, :, :2] for name in ("query", "key")}
    few |= {"value": case["value"], "erase_key": case["erase_key"][:, :, :1]}
    few |= {"beta": case["beta"], "initial_state": case["initial_state"]}
    spread = {n: jnp.repeat(few[n], H // few[n].shape[2], 2) for n in ("query", "key", "erase_key")}
    for beta in (case["beta"], of_head(case["beta"])):
        out, state = loop(few | spread | {"beta": beta})
        found, last = run(**(few | {"beta": beta}), return_state=True)
        np.testing.assert_allclose(found, out, atol=1e-10)
        np.testing.assert_allclose(last, state, atol=1e-10)
    with pytest.raises(
        ValueError, match="query: expected a number of heads that divides the value"
    ):
        recur(case["query"][:, :, :3], case["key"], case["value"])


def test_the_kernel_takes_fewer_queries_and_refuses_the_rest(case):
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), case)
    few = {n: wide[n] for n in ("key", "value")} | {"query": wide["query"][:, :, :1]}
    few["beta"] = of_head(wide["beta"])
    np.testing.assert_allclose(
        run(**few, implementation="pallas"), run(**few, implementation="xla"), atol=1e-4
    )
    with pytest.raises(NotImplementedError, match="kernels erase at the key they write to"):
        recur(**few, erase_key=wide["key"], implementation="pallas")
    for rates in ({"value_decay": wide["value_decay"]}, {"beta": wide["beta"]}):
        with pytest.raises(NotImplementedError, match="kernels have no rates per value channel"):
            recur(**(few | rates), implementation="pallas")
    with pytest.raises(ValueError, match="erase_key: expected None without beta"):
        recur(wide["query"], wide["key"], wide["value"], erase_key=wide["key"])


def test_along_a_mesh_axis(case):
    devices = jax.devices()[:2]
    if len(devices) < 2:
        pytest.skip("one device")
    mesh = jax.make_mesh((2,), ("s",), (jax.sharding.AxisType.Auto,), devices=devices)
    names = ("query", "key", "value", "beta", "erase_key")
    arrays = [case[n][:, :10] for n in names]
    arrays[3], arrays[0] = of_head(arrays[3]), arrays[0][:, :, :2]
    along = jax.sharding.PartitionSpec(None, "s")
    spread = lambda *a: recur_along_axis(**dict(zip(names, a, strict=True)), axis_name="s")
    found = jax.shard_map(spread, mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    expected = run(**dict(zip(names, arrays, strict=True)))
    np.testing.assert_allclose(jax.jit(found)(*arrays), expected, atol=1e-10)
