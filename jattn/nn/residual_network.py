"""A small residual network that takes any gate and any pool of the zoo by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from jattn.checks import check_count
from jattn.mechanisms import zoo
from jattn.nn.kinds import Gate, Pool

Named = str | tuple[str, Mapping[str, Any]]


def named(kind: str, entry: Named | None) -> tuple[str, dict[str, Any]] | None:
    """The name and options of a mechanism of a kind; None where there is none.

    Raises:
        ValueError: something else, or a mechanism of another kind.

    Example:
        >>> named("gate", "se"), named("pool", None)
        (('se', {}), None)
    """
    if entry is None:
        return None
    name, options = (entry, {}) if isinstance(entry, str) else entry
    if zoo.info(name).kind != kind:
        raise ValueError(f"{kind}: expected a {kind}, got {name!r}, a {zoo.info(name).kind}")
    return name, dict(options)


@dataclasses.dataclass(frozen=True)
class ResidualNetworkConfig:
    """Configuration of a `ResidualNetwork`.

    Attributes:
        classes: number of classes.
        channels: of the images.
        widths: channels of each stage; from the second on a stage halves the sides.
        blocks: residual blocks of each stage.
        gate: on each block's change, before it is added: a name of `zoo.names(kind="gate")`, or
            `(name, options)`; None: none.
        pool: what makes one vector of all places, as `gate`; None: their mean.

    Raises:
        ValueError: a value that does not fit.

    Example:
        >>> ResidualNetworkConfig(classes=10, gate="set_pooling")
        Traceback (most recent call last):
        ...
        ValueError: gate: expected a gate, got 'set_pooling', a pool
    """

    classes: int
    channels: int = 1
    widths: Sequence[int] = (16, 32)
    blocks: int = 1
    gate: Named | None = None
    pool: Named | None = None

    def __post_init__(self):
        for field in ("classes", "channels", "blocks"):
            check_count(field, getattr(self, field))
        if not self.widths:
            raise ValueError("widths: expected one at least, got none")
        for width in self.widths:
            check_count("widths", width)
            for kind in ("gate", "pool"):
                if found := named(kind, getattr(self, kind)):
                    zoo.make(found[0], dim=width, **found[1])


class _Block(nnx.Module):
    """Two convolutions with batch norm, a gate, and the way around them."""

    def __init__(self, inputs: int, width: int, stride: int, gate, *, rngs: nnx.Rngs):
        size: dict[str, Any] = dict(kernel_size=(3, 3), use_bias=False, rngs=rngs)
        self.first = nnx.Conv(inputs, width, strides=stride, **size)
        self.second = nnx.Conv(width, width, **size)
        self.norms = nnx.List([nnx.BatchNorm(width, rngs=rngs) for _ in range(2)])
        self.gate = None if gate is None else Gate(gate[0], dim=width, rngs=rngs, **gate[1])
        around = stride > 1 or inputs != width
        self.around = (
            nnx.Conv(inputs, width, (1, 1), strides=stride, use_bias=False, rngs=rngs)
            if around
            else None
        )

    def __call__(self, x: Array, training: bool) -> Array:
        average = not training
        change = jax.nn.relu(self.norms[0](self.first(x), use_running_average=average))
        change = self.norms[1](self.second(change), use_running_average=average)
        if self.gate is not None:
            change = self.gate(change, training=training)
        return jax.nn.relu(change + (x if self.around is None else self.around(x)))


class ResidualNetwork(nnx.Module):
    """Stages of residual blocks, each with a gate on its change; then a pool and a read-out.

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Reference:
        arXiv 1512.03385; where gates stand, arXiv 1709.01507.

    Example:
        >>> import jax.numpy as jnp
        >>> config = ResidualNetworkConfig(classes=10, widths=(8,), gate="cbam", pool="simpool")
        >>> model = ResidualNetwork(config, rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((2, 8, 8, 1))).shape
        (2, 10)
    """

    def __init__(self, config: ResidualNetworkConfig, *, rngs: nnx.Rngs):
        gate, pool = named("gate", config.gate), named("pool", config.pool)
        first = config.widths[0]
        self.stem = nnx.Conv(config.channels, first, (3, 3), use_bias=False, rngs=rngs)
        blocks, inputs = [], first
        for stage, width in enumerate(config.widths):
            for index in range(config.blocks):
                stride = 2 if stage and not index else 1
                blocks.append(_Block(inputs, width, stride, gate, rngs=rngs))
                inputs = width
        self.blocks = nnx.List(blocks)
        self.pool = None if pool is None else Pool(pool[0], dim=inputs, rngs=rngs, **pool[1])
        self.head = nnx.Linear(inputs, config.classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b y x c"], *, training: bool = False
    ) -> Float[Array, "b classes"]:
        """Logits of every image; in training averages are moved, in place."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x, training)
        tokens = x.reshape(len(x), -1, x.shape[-1])
        if self.pool is None:
            return self.head(tokens.mean(1))
        return self.head(self.pool(tokens, training=training).mean(1))
