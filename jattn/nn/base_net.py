"""BaseNet: a small convolutional network for recordings of the brain, with any gate of the zoo."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.checks import check_count, check_number, check_shape
from jattn.mechanisms import zoo
from jattn.mechanisms.layers.convolutions import depthwise
from jattn.nn.kinds import Gate
from jattn.nn.residual_network import Named, named


@dataclasses.dataclass(frozen=True)
class BaseNetConfig:
    """Configuration of a `BaseNet`; what is not given is as in the paper.

    Attributes:
        classes: number of classes.
        electrodes: channels of a recording.
        length: samples of a recording, which the read-out knows.
        filters: temporal filters, each with a spatial one.
        width: samples of a temporal filter.
        window, stride: of the first mean over time.
        features: channels that the gate sees.
        taps: width of the second convolution.
        final: tokens of each of the last means.
        gate: a name of `zoo.names(kind="gate")`, or `(name, options)`; None: none.
        dropout: share that is dropped behind each mean, in training with a key.

    Raises:
        ValueError: a value that does not fit.

    Example:
        >>> BaseNetConfig(classes=4).tokens
        62
        >>> BaseNetConfig(classes=4, length=50)
        Traceback (most recent call last):
        ...
        ValueError: length: expected at least 180 for one last mean, got 50
    """

    classes: int
    electrodes: int = 22
    length: int = 1000
    filters: int = 40
    width: int = 25
    window: int = 75
    stride: int = 15
    features: int = 16
    taps: int = 15
    final: int = 8
    gate: Named | None = None
    dropout: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.name not in ("gate", "dropout"):
                check_count(field.name, getattr(self, field.name))
        check_number("dropout", self.dropout, least=0)
        if self.dropout >= 1:
            raise ValueError(f"dropout: expected less than 1, got {self.dropout}")
        least = self.window + (self.final - 1) * self.stride
        if self.length < least:
            raise ValueError(
                f"length: expected at least {least} for one last mean, got {self.length}"
            )
        if found := named("gate", self.gate):
            zoo.make(found[0], dim=self.features, **found[1])

    @property
    def tokens(self) -> int:
        """How many places in time the gate sees."""
        return (self.length - self.window) // self.stride + 1


class BaseNet(nnx.Module):
    """Filters along time, then over electrodes; a second pair of them, a gate; means, a read-out.

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Reference:
        arXiv 2310.11198.

    Example:
        >>> config = BaseNetConfig(classes=4, electrodes=3, length=200, filters=8, gate="eca")
        >>> BaseNet(config, rngs=nnx.Rngs(0))(jnp.zeros((2, 200, 3))).shape
        (2, 4)
    """

    def __init__(self, config: BaseNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        filters, features = config.filters, config.features

        def weight(*shape: int, inputs: int, outputs: int) -> nnx.Param:
            bound = (6 / (inputs + outputs)) ** 0.5  # Glorot's
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))

        width, taps = config.width, config.taps
        self.along_time = weight(width, filters, inputs=width, outputs=width * filters)
        self.over_electrodes = weight(
            config.electrodes, filters, inputs=config.electrodes, outputs=config.electrodes
        )
        self.mix = weight(filters, features, inputs=filters, outputs=features)
        self.taps = weight(taps, features, inputs=taps, outputs=taps)
        self.again = weight(features, features, inputs=features, outputs=features)
        sizes = (filters, filters, features, features)
        self.norms = nnx.List([nnx.BatchNorm(size, rngs=rngs) for size in sizes])
        gate = named("gate", config.gate)
        self.gate = None if gate is None else Gate(gate[0], dim=features, rngs=rngs, **gate[1])
        self.head = nnx.Linear(config.tokens // config.final * features, config.classes, rngs=rngs)

    def __call__(
        self,
        series: Float[Array, "b t electrodes"],
        *,
        training: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "b classes"]:
        """Logits of every recording.

        Args:
            series: recordings.
            training: normalise over the batch, and move averages, in place.
            key: of what is dropped in training; without it nothing is.
        """
        config = self.config
        sizes: dict[str, Any] = {"t": config.length, "electrodes": config.electrodes}
        check_shape("series", series, "b t electrodes", sizes)
        norms = [lambda x, n=n: n(x, use_running_average=not training) for n in self.norms]
        keys = [None] * 2 if key is None or not training else list(jax.random.split(key))

        x = _windows(series, config.width) @ self.along_time[...]
        x = jnp.einsum("btef,ef->btf", norms[0](x), self.over_electrodes[...])
        x = jax.nn.elu(norms[1](x))
        x = self._dropped(_means(x, config.window, config.stride), keys[0])
        x = jax.nn.elu(norms[2](x @ self.mix[...]))
        x = jax.nn.elu(norms[3](depthwise(x, self.taps[...]) @ self.again[...]))
        if self.gate is not None:
            x = self.gate(x, training=training)
        x = self._dropped(_means(x, config.final, config.final), keys[1])
        return self.head(x.reshape(len(x), -1))

    def _dropped(self, x: Array, key: jax.Array | None) -> Array:
        if key is None:
            return x
        kept = 1 - self.config.dropout
        return jnp.where(jax.random.bernoulli(key, kept, x.shape), x / kept, 0)


def _windows(series: Float[Array, "b t e"], width: int) -> Float[Array, "b t e width"]:
    """What a filter along time sees at each sample, zeros around.

    One product with these compiles and runs faster than a convolution with one input channel.
    """
    length = series.shape[1]
    padded = jnp.pad(series, [(0, 0), ((width - 1) // 2, width // 2), (0, 0)])
    places = jnp.arange(length)[:, None] + jnp.arange(width)
    return padded[:, places].swapaxes(2, 3)


def _means(x: Float[Array, "b t c"], window: int, stride: int) -> Float[Array, "b k c"]:
    """Over windows of time."""
    return nnx.avg_pool(x, (window,), (stride,))
