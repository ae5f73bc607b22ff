"""Which kernels a mechanism runs on, read off the program that is traced for a TPU."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

import jattn

LENGTH, DIM, HEADS = 1024, 256, 2
WORDS = {"attend_forward": "softmax-like engine", "recur_forward": "recurrent engine"}


def target(platform: str, kind: str) -> AbstractMesh:
    """A device that need not be there, to trace programs for."""
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    return AbstractMesh((1,), ("one",), (AxisType.Auto,), abstract_device=device)


def _kernels_in(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield str(equation.params["name"])
            continue
        for value in equation.params.values():
            for one in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from _kernels_in(inner)


def kernels_of(name: str) -> list[str]:
    """The Pallas kernels in a mechanism's forward pass on a TPU v5e, by name.

    Of 1024 tokens, 2 heads of 128 and bfloat16; causal where it can be.
    """
    mechanism = jattn.zoo.info(name)
    # Where parameters are as many as tokens, there must be enough.
    chosen = {"max_length": LENGTH} if "max_length" in jattn.zoo.options(name) else {}
    if mechanism.kind == "mixer":
        made = jattn.zoo.make(name, dim=DIM, heads=HEADS, causal=mechanism.causal, **chosen)
    else:
        made = jattn.zoo.make(name, dim=DIM, **chosen)
    params = jax.eval_shape(made.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, LENGTH, DIM), jnp.bfloat16)
    inputs = (x, x) if mechanism.kind == "pointer" else (x,)
    with jax.sharding.use_abstract_mesh(target("tpu", "TPU v5e")):
        traced = jax.make_jaxpr(made.apply)(params, *inputs)
    return sorted(set(_kernels_in(traced.jaxpr)))
