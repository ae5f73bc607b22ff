"""Attention round a ring of devices: the numbers of one device, and nothing but neighbours."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jattn import attend, masks
from jattn.attention.ring import ring_attend, stripe
from tests import tpu_compile

DEVICES = 4
AUTO = (jax.sharding.AxisType.Auto,)
SPREAD = P(None, "sequence")


def draw(t=32, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = [(2, t, 4, 8), (2, t, 2, 8), (2, t, 1, 6), (2, t, 4, 6), (2, t, 4)]
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def weighed(values, d_out, d_lse):
    out, lse = values
    return (out * d_out).sum() + (lse * d_lse).sum(), (out, lse)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("causal", "striped"), [(False, False), (True, False), (True, True)], ids=str
)
def test_values_and_gradients_are_those_of_one_device(causal, striped):
    *arrays, d_out, d_lse = draw()
    mesh = jax.make_mesh((DEVICES,), ("sequence",), AUTO, devices=jax.devices()[:DEVICES])
    inside = partial(ring_attend, axis_name="sequence", causal=causal, striped=striped)
    ring = jax.shard_map(inside, mesh=mesh, in_specs=SPREAD, out_specs=SPREAD, check_vma=False)

    def spread(*arrays):
        if not striped:
            return ring(*arrays)
        parts = ring(*(stripe(x, DEVICES) for x in arrays))
        return tuple(stripe(x, x.shape[1] // DEVICES) for x in parts)

    def whole(*arrays):
        mask = masks.causal() if causal else None
        return attend(*arrays, mask=mask, return_lse=True)

    @partial(jax.jit, static_argnums=0)
    def run(function, arrays):
        loss = lambda *a: weighed(function(*a), d_out, d_lse)
        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*arrays)

    (_, values), grads = run(spread, arrays)
    (_, want), want_grads = run(whole, arrays)
    for got, wanted in zip((*values, *grads), (*want, *want_grads), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * max(1, float(jnp.abs(wanted).max())))


def test_stripes_need_equal_shares(plain_checks):
    with pytest.raises(ValueError, match="x: expected a length that 4 divides, got 6"):
        stripe(jnp.arange(6), 4, axis=0)


@pytest.mark.kernels
@pytest.mark.libtpu
def test_compiles_for_a_pod_with_neighbours_only():
    script = """
from functools import partial
from jattn.attention.ring import ring_attend

mesh = mesh_of("v5e:16x16", (256,), ("sequence",))
spread = P(None, "sequence")
inside = partial(ring_attend, axis_name="sequence", causal=True, striped=True)
ring = jax.shard_map(inside, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)
give = lambda *s: jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=NamedSharding(mesh, spread))
length = 256 * 1024
q, k, v = give(1, length, 8, 128), give(1, length, 2, 128), give(1, length, 2, 128)

def gradients(q, k, v):
    return jax.grad(lambda *a: ring(*a)[0].astype(jnp.float32).sum(), (0, 1, 2))(q, k, v)

for name, function in (("forward", lambda *a: ring(*a)[0]), ("gradients", gradients)):
    compiled = jax.jit(function).lower(q, k, v).compile()
    lines = compiled.as_text().splitlines()
    count = lambda op: sum(f" {op}(" in x or f" {op}-start(" in x for x in lines)
    report(name=name, permutes=count("collective-permute"), gathers=count("all-gather"),
           reduces=count("all-reduce"), kernels=sum("tpu_custom_call" in x for x in lines),
           temporary=compiled.memory_analysis().temp_size_in_bytes)
"""
    forward, gradients = tpu_compile.run(script)
    # Forward, keys and values; backward, these again and their gradients.
    assert (forward["permutes"], gradients["permutes"]) == (2, 6)
    for found in (forward, gradients):
        assert found["gathers"] == found["reduces"] == 0
        assert found["kernels"] > 0
        assert found["temporary"] < 200e6
