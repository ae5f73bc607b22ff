"""Which kind of machine a program is being made for."""

import re

import jax
from jax.sharding import AxisType


def platform() -> str:
    """ "tpu", "gpu" or "cpu": of the mesh in use if there is one, else of JAX's default device.

    A program may be compiled for machines that are not there: inside `jax.shard_map` or
    `jax.set_mesh` over the devices of a described pod, it is the pod that counts.

    Example:
        >>> platform() in ("cpu", "gpu", "tpu")
        True
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return jax.default_backend() if device is None else device.platform


def device_kind() -> str:
    """The kind of device a program is being made for, e.g. "TPU v6 lite"; see `platform`.

    Example:
        >>> isinstance(device_kind(), str)
        True
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return jax.devices()[0].device_kind if device is None else device.device_kind


def is_hopper() -> bool:
    """Whether the GPU is of the Hopper generation: H100, H200 and their kin.

    Example:
        >>> is_hopper()
        False
    """
    return platform() == "gpu" and re.search(r"\bG?H\d+", device_kind()) is not None


def kernels_can_run() -> bool:
    """Whether a TPU kernel can be part of the program being made.

    A kernel is for one device: inside `jax.shard_map` it gets that device's part, but XLA cannot
    divide it by itself. Where arrays tell their mesh, `jattn.sharding` brings them to that form.

    Example:
        >>> kernels_can_run()
        False
    """
    mesh = jax.sharding.get_abstract_mesh()
    if platform() != "tpu":
        return False
    if mesh.empty:
        return jax.device_count() == 1
    return mesh.size == 1 or all(kind == AxisType.Manual for kind in mesh.axis_types)
