"""A classifier of images whose every layer may mix patches by another mechanism."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_count, check_flag, check_number, check_shape
from jattn.mechanisms import zoo
from jattn.mechanisms.softmax.dependency_tree import pool as pool_by_message
from jattn.mechanisms.softmax.reversed_attention import TEMPERATURE
from jattn.nn.blocks import Block
from jattn.nn.dependencies import (
    REVERSED,
    Carried,
    Dependencies,
    apply_carrying,
    patches_left,
    read_dependencies,
)
from jattn.nn.kinds import Pool
from jattn.nn.mixer import Mixer, make_pair
from jattn.nn.patches import check_patch, patches
from jattn.nn.residual_network import Named, named
from jattn.nn.transformer import DTYPES, Layer, mean_over_layers, mechanisms_by_layer


@dataclasses.dataclass(frozen=True)
class VisionTransformerConfig:
    """Configuration of a `VisionTransformer`.

    Attributes:
        classes: number of classes.
        height, width, channels: of the images.
        patch: side of a patch, a divisor of height and width.
        dim: model dimension m.
        heads: heads of every layer.
        layers: number of layers.
        mechanisms: one for all layers, or a sequence of one per layer; each a name of the zoo or
            `(name, options)`, of a mechanism that can be bidirectional.
        mlp_ratio: inner dimension of the MLPs over m; 0 leaves them out.
        dtype: of activations, `"float32"` or `"bfloat16"`; parameters and logits are float32.
        pool: what makes one vector of all patches: a name of `zoo.names(kind="pool")`, or
            `(name, options)`; several vectors are averaged. None: their mean.
        carry_messages: layers of reversed attention, and all must be, hand on how much a patch
            still speaks, M, and the mean over patches is weighted by it (DependencyViT,
            arXiv 2304.03282). Without it M starts at 1 in every layer.
        prune_after: layers, counted from 0, behind which the patches that speak least are dropped;
            needs `carry_messages`. The paper's Lite model has (2, 5, 8, 11), of 12 layers.
        prune_rate: share of all patches that each of those drops.

    Raises:
        ValueError: a value that does not fit, here already and not when the model is made.

    Example:
        >>> VisionTransformerConfig(classes=10, height=28, width=28, patch=5)
        Traceback (most recent call last):
        ...
        ValueError: patch: expected a divisor of height=28, got 5
    """

    classes: int
    height: int = 32
    width: int = 32
    channels: int = 1
    patch: int = 4
    dim: int = 64
    heads: int = 4
    layers: int = 2
    mechanisms: Layer | Sequence[Layer] = "softmax_attention"
    mlp_ratio: float = 4.0
    dtype: str = "float32"
    pool: Named | None = None
    carry_messages: bool = False
    prune_after: Sequence[int] = ()
    prune_rate: float = 0.16

    def __post_init__(self):
        for field in ("classes", "height", "width", "channels", "patch", "dim", "heads", "layers"):
            check_count(field, getattr(self, field))
        check_patch(self.patch, height=self.height, width=self.width)
        check_number("mlp_ratio", self.mlp_ratio, least=0)
        check_choice("dtype", self.dtype, DTYPES)
        for name, options in mechanisms_by_layer(self.mechanisms, self.layers):
            make_pair(name, dim=self.dim, heads=self.heads, causal=False, **options)
        if found := named("pool", self.pool):
            zoo.make(found[0], dim=self.dim, **found[1])
            if self.carry_messages:
                raise ValueError("pool: expected None with carry_messages, which weighs the mean")
        check_flag("carry_messages", self.carry_messages)
        if self.prune_after and not self.carry_messages:
            raise ValueError(
                "prune_after: needs carry_messages=True, whose M patches are pruned by"
            )
        self.carried()

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return self.height * self.width // self.patch**2

    def carried(self) -> Carried | None:
        """How layers hand on M; None if they do not."""
        if not self.carry_messages:
            return None
        layers = mechanisms_by_layer(self.mechanisms, self.layers)
        for name, _ in layers:
            if name != REVERSED:
                raise ValueError(f"carry_messages: expected layers of {REVERSED}, got {name}")
        return Carried(
            self.heads,
            tuple(options.get("temperature", TEMPERATURE) for _, options in layers),
            patches_left(self.patches, self.layers, self.prune_after, self.prune_rate),
        )


class VisionTransformer(nnx.Module):
    """Patch embedding with learned positions, pre-norm blocks, mean or pool of patches, read-out.

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Reference:
        arXiv 2010.11929.

    Example:
        >>> config = VisionTransformerConfig(classes=10, height=8, width=8, patch=2, dim=16)
        >>> model = VisionTransformer(config, rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((3, 8, 8, 1))).shape
        (3, 10)
    """

    def __init__(self, config: VisionTransformerConfig, *, rngs: nnx.Rngs):
        dim, dtype = config.dim, jnp.dtype(config.dtype)
        self.patch = config.patch
        self.shape = (config.height, config.width, config.channels)
        self.carried = config.carried()
        pixels = config.patch**2 * config.channels
        self.embed = nnx.Linear(pixels, dim, dtype=dtype, rngs=rngs)
        self.places = nnx.Embed(config.patches, dim, dtype=dtype, rngs=rngs)
        blocks = []
        for name, options in mechanisms_by_layer(config.mechanisms, config.layers):
            mixer = Mixer(name, rngs=rngs, dim=dim, heads=config.heads, causal=False, **options)
            blocks.append(Block(mixer, dim, config.mlp_ratio, dtype=dtype, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.norm = nnx.RMSNorm(dim, dtype=dtype, rngs=rngs)
        found = named("pool", config.pool)
        self.pool = None if found is None else Pool(found[0], dim=dim, rngs=rngs, **found[1])
        self.head = nnx.Linear(dim, config.classes, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "b height width channels"],
        *,
        key: jax.Array | None = None,
        training: bool = False,
    ) -> Any:
        """Logits of every image, `[b, classes]`.

        Args:
            images: `[b, height, width, channels]`.
            key: for mechanisms that draw random numbers.
            training: return `(logits, losses)` and move statistics, as `Transformer` does.

        Raises:
            ValueError: images of another size.
        """
        x = self._embedded(images)
        if self.carried is not None:
            x, message = apply_carrying(self.blocks, x, self.carried)
            logits = self.head(pool_by_message(self.norm(x), message)).astype(jnp.float32)
            return (logits, {}) if training else logits
        x, found = self._through(x, key, training)
        tokens = self.norm(x)
        tokens = tokens if self.pool is None else self.pool(tokens, training=training)
        logits = self.head(tokens.mean(1)).astype(jnp.float32)
        return (logits, mean_over_layers(found)) if training else logits

    def tokens(
        self, images: Float[Array, "b height width channels"], *, key: jax.Array | None = None
    ) -> Float[Array, "b t m"]:
        """What the pool gets: the patches of every image behind the last norm.

        Args:
            images: `[b, height, width, channels]`.
            key: for mechanisms that draw random numbers.

        Example:
            >>> config = VisionTransformerConfig(classes=10, height=8, width=8, patch=2, dim=16)
            >>> model = VisionTransformer(config, rngs=nnx.Rngs(0))
            >>> model.tokens(jnp.zeros((3, 8, 8, 1))).shape
            (3, 16, 16)
        """
        x = self._embedded(images)
        if self.carried is not None:
            return self.norm(apply_carrying(self.blocks, x, self.carried)[0])
        return self.norm(self._through(x, key, False)[0])

    def _through(
        self, x: Array, key: jax.Array | None, training: bool
    ) -> tuple[Array, list[dict[str, Array]]]:
        """Patches behind all blocks, and in training the losses of each."""
        found = []
        for index, block in enumerate(self.blocks):
            own = None if key is None else jax.random.fold_in(key, index)
            x = block(x, key=own, training=training)
            if training:
                x, losses = x
                found.append(losses)
        return x, found

    def dependencies(self, images: Float[Array, "b height width channels"]) -> Dependencies:
        """What the patches of every image take from each other, and the tree of them.

        Args:
            images: `[b, height, width, channels]`.

        Raises:
            ValueError: a model without `carry_messages`, or images of another size.

        Reference:
            arXiv 2304.03282.

        Example:
            >>> config = VisionTransformerConfig(
            ...     classes=2, height=4, width=4, patch=2, dim=8, heads=2,
            ...     mechanisms="reversed_attention", carry_messages=True, prune_after=(0,),
            ... )
            >>> model = VisionTransformer(config, rngs=nnx.Rngs(0))
            >>> found = model.dependencies(jnp.ones((3, 4, 4, 1)))
            >>> [layer.shape for layer in found.layers], found.parents.shape
            ([(3, 4, 4), (3, 3, 3)], (3, 4))
        """
        if self.carried is None:
            raise ValueError("carry_messages: expected a model made with True, got one with False")
        return read_dependencies(self.blocks, self._embedded(images), self.carried)

    def _embedded(self, images: Float[Array, "b height width channels"]) -> Float[Array, "b t m"]:
        height, width, channels = self.shape
        sizes: dict[str, Any] = {"height": height, "width": width, "channels": channels}
        check_shape("images", images, "b height width channels", sizes)
        x = self.embed(patches(images, self.patch))
        return x + self.places(jnp.arange(x.shape[1]))
