"""Which kind of machine a program is being made for."""

import jax


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
