"""The recurrence along an axis of devices: values and gradients of one device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jattn.recurrence import recur
from jattn.recurrence.along_axis import recur_along_axis
from tests.recurrence.test_recur import inputs

DEVICES = 4
AUTO = (jax.sharding.AxisType.Auto,)


@pytest.mark.smoke
@pytest.mark.parametrize(("decay", "beta"), [(None, False), ("head", True), ("channel", False)])
def test_values_and_gradients_are_those_of_one_device(decay, beta):
    x = inputs(24, decay=decay, beta=beta)
    x.pop("initial_state")
    mesh = jax.make_mesh((DEVICES,), ("sequence",), AUTO, devices=jax.devices()[:DEVICES])
    spread = P(None, "sequence")
    inside = lambda x: recur_along_axis(**x, axis_name="sequence", chunk_size=4)
    along = jax.shard_map(inside, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)

    @partial(jax.jit, static_argnums=0)
    def run(function, x):
        return jax.value_and_grad(
            lambda x: (jnp.sin(function(x)).sum(), function(x)), has_aux=True
        )(x)

    (_, out), grads = run(along, x)
    (_, want), want_grads = run(lambda x: recur(**x), x)
    np.testing.assert_allclose(out, want, atol=5e-6)
    for name in grads:
        scale = max(1.0, float(jnp.abs(want_grads[name]).max()))
        np.testing.assert_allclose(grads[name], want_grads[name], atol=1e-5 * scale, err_msg=name)
