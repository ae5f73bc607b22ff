"""A U-Net whose gates, mixers and global map are options of one net."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.checks import check_count, check_shape
from jattn.mechanisms import zoo
from jattn.mechanisms.cross.global_attention import global_attention, global_attention_init
from jattn.mechanisms.cross.supervised_attention import (
    supervised_attention,
    supervised_attention_init,
)
from jattn.nn.convolution import Convolution
from jattn.nn.kinds import Gate
from jattn.nn.mixer import Mixer
from jattn.nn.residual_network import Named, named

GROUPS = 4  # of channels, over which each place's features are normed with all others'


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Configuration of a `UNet`.

    Attributes:
        outputs: numbers of each pixel: classes, or channels of a restored image.
        channels: of the images.
        widths: channels of each level, multiples of 4; every level but the first halves the sides.
        gate: on what each level of the way up gives, its factors made of the features before: a
            name of `zoo.names(kind="gate")`, or `(name, options)`; None: none.
        mixers: names of mixers, or `(name, options)`, that are added side by side at the lowest
            level, where places are tokens.
        map_widths: levels of a second net, whose one map opens every level of the way down; (): no
            such net.
        supervise: whether the last features are gated by a restored image, which is given, too.

    Raises:
        ValueError: a value that does not fit.

    Example:
        >>> UNetConfig(outputs=2, widths=(8, 18))
        Traceback (most recent call last):
        ...
        ValueError: widths: expected multiples of 4, got 18
    """

    outputs: int
    channels: int = 1
    widths: Sequence[int] = (8, 16, 32)
    gate: Named | None = None
    mixers: Sequence[Named] = ()
    map_widths: Sequence[int] = ()
    supervise: bool = False

    def __post_init__(self):
        check_count("outputs", self.outputs)
        check_count("channels", self.channels)
        for field in ("widths", "map_widths"):
            for width in getattr(self, field):
                check_count(field, width)
                if width % GROUPS:
                    raise ValueError(f"{field}: expected multiples of {GROUPS}, got {width}")
        if len(self.widths) < 2:
            raise ValueError(f"widths: expected two levels at least, got {len(self.widths)}")
        if len(self.map_widths) == 1:
            raise ValueError("map_widths: expected two levels at least, or none, got 1")
        if found := named("gate", self.gate):
            for width in self.widths[:-1]:
                zoo.make(found[0], dim=width, **found[1])
        for entry in self.mixers:
            name, options = _mixer(entry)
            zoo.make(name, dim=self.widths[-1], heads=1, causal=False, **options)
        if self.supervise and self.outputs != self.channels:
            raise ValueError("supervise: needs as many outputs as the images have channels")


def _mixer(entry: Named) -> tuple[str, dict[str, Any]]:
    found = named("mixer", entry)
    assert found is not None
    return found


class UNetOutput(NamedTuple):
    """What a `UNet` gives.

    Attributes:
        values: of each pixel.
        factors: of the gate of each level, the coarsest first; () without gates.
        restored: the image that gates the last features; None without one.
    """

    values: Float[Array, "b y x k"]
    factors: tuple[Float[Array, "b _ _ _"], ...]
    restored: Float[Array, "b y x c"] | None


class _Layer(nnx.Module):
    """A convolution, a group norm, and ReLU."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.inner = Convolution(inputs, width, use_bias=False, rngs=rngs)
        self.norm = nnx.GroupNorm(width, num_groups=GROUPS, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(self.norm(self.inner(x)))


class UNet(nnx.Module):
    """Down by convolutions and maxima, up by interpolation, with what was there at each level.

        up_l:  h = conv([resize(x), skip_l]),   y = conv(h) * factors(h)

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Reference:
        arXiv 1505.04597; the gates' place, arXiv 2007.01152; position and channel attention, arXiv
        1906.02849; the one map for all levels, arXiv 2110.06063; the restored image, arXiv
        2201.02973.

    Example:
        >>> config = UNetConfig(outputs=3, gate=("semantic_gate", {"classes": 3}),
        ...                     mixers=("position_attention", "channel_self_attention"))
        >>> out = UNet(config, rngs=nnx.Rngs(0))(jnp.zeros((2, 16, 16, 1)))
        >>> out.values.shape, [factors.shape for factors in out.factors]
        ((2, 16, 16, 3), [(2, 8, 8, 1), (2, 16, 16, 1)])
    """

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        widths, gate = list(config.widths), named("gate", config.gate)
        self.config = config
        pair = lambda inputs, width: nnx.List(
            [_Layer(inputs, width, rngs=rngs), _Layer(width, width, rngs=rngs)]
        )
        sources = [config.channels, *widths[:-1]]
        self.down = nnx.List([pair(i, w) for i, w in zip(sources, widths, strict=True)])
        self.norm = nnx.LayerNorm(widths[-1], rngs=rngs) if config.mixers else None
        self.mixers = nnx.List([
            Mixer(name, rngs=rngs, dim=widths[-1], heads=1, causal=False, **options)
            for name, options in map(_mixer, config.mixers)
        ])  # fmt: skip
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nnx.List([pair(below + width, width) for below, width in ups])
        self.gates = nnx.List(
            [Gate(gate[0], dim=width, rngs=rngs, **gate[1]) for _, width in ups] if gate else []
        )
        self.map, heads = nnx.data(None), []
        if config.map_widths:
            body = UNetConfig(outputs=1, channels=config.channels, widths=config.map_widths)
            self.map = nnx.data(UNet(body, rngs=rngs))
            heads = [global_attention_init(rngs.params(), width, 1) for width in widths]
        self.heads = nnx.data(jax.tree.map(nnx.Param, heads))
        drawn = (
            supervised_attention_init(rngs.params(), widths[0], image_channels=config.channels)
            if config.supervise
            else {}
        )
        self.supervised = nnx.data(jax.tree.map(nnx.Param, drawn))
        self.head = Convolution(widths[0], config.outputs, 1, rngs=rngs)

    def __call__(self, images: Float[Array, "b y x c"]) -> UNetOutput:
        """Values of every pixel, and what opened the way to them.

        Raises:
            ValueError: images of other channels, or with sides that cannot be halved so often.
        """
        check_shape("images", images, "b y x c", {"c": self.config.channels})
        for levels in (self.config.widths, self.config.map_widths):
            if any(side % 2 ** max(len(levels) - 1, 0) for side in images.shape[1:3]):
                raise ValueError(
                    f"images: expected sides that can be halved {len(levels) - 1} times, got "
                    f"{images.shape[1]} x {images.shape[2]}"
                )
        opened = None if self.map is None else self.map(images).values
        x, skips = images, []
        for level, convolutions in enumerate(self.down):
            x = nnx.max_pool(x, (2, 2), (2, 2)) if level else x
            for convolution in convolutions:
                x = convolution(x)
            if opened is not None:
                x = global_attention(_arrays(self.heads)[level], x, opened)[0]
            skips.append(x)
        x = self._mixed(skips.pop())
        factors = []
        for level, (first, second) in enumerate(self.up):
            skip = skips.pop()
            larger = jax.image.resize(x, (*skip.shape[:3], x.shape[-1]), "linear")
            h = first(jnp.concatenate([larger, skip], axis=-1))
            x = second(h)
            if self.gates:
                factors.append(self.gates[level].factors(h))
                x = x * factors[-1]
        restored = None
        if self.config.supervise:
            x, restored = supervised_attention(_arrays(self.supervised), x, images)
        values = self.head(x)
        return UNetOutput(values if restored is None else values + images, tuple(factors), restored)

    def _mixed(self, x: Array) -> Array:
        if self.norm is None:
            return x
        tokens = self.norm(x.reshape(len(x), -1, x.shape[-1]))
        changes = [mixer(tokens).reshape(x.shape) for mixer in self.mixers]
        return x + sum(changes, jnp.zeros_like(x))


def _arrays(tree: Any) -> Any:
    is_variable = lambda node: isinstance(node, nnx.Variable)
    return jax.tree.map(lambda variable: variable[...], tree, is_leaf=is_variable)
