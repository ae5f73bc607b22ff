"""A classifier of images whose every layer may mix patches by another mechanism."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_shape
from jattn.mechanisms import zoo
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer
from jattn.nn.transformer import DTYPES, Layer, mechanisms_by_layer


@dataclasses.dataclass(frozen=True)
class VisionTransformerConfig:
    """What a `VisionTransformer` is made of.

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

    def __post_init__(self):
        for field in ("classes", "height", "width", "channels", "patch", "dim", "heads", "layers"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: expected at least 1, got {getattr(self, field)}")
        for field in ("height", "width"):
            if getattr(self, field) % self.patch:
                raise ValueError(
                    f"patch: expected a divisor of {field}={getattr(self, field)}, got {self.patch}"
                )
        if self.mlp_ratio < 0:
            raise ValueError(f"mlp_ratio: expected at least 0, got {self.mlp_ratio}")
        check_choice("dtype", self.dtype, DTYPES)
        for name, options in mechanisms_by_layer(self.mechanisms, self.layers):
            zoo.make(name, dim=self.dim, heads=self.heads, causal=False, **options)


class VisionTransformer(nnx.Module):
    """Patch embedding with learned positions, pre-norm blocks, mean over patches, read-out.

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
        patches = config.height * config.width // config.patch**2
        pixels = config.patch**2 * config.channels
        self.embed = nnx.Linear(pixels, dim, dtype=dtype, rngs=rngs)
        self.places = nnx.Embed(patches, dim, dtype=dtype, rngs=rngs)
        blocks = []
        for name, options in mechanisms_by_layer(config.mechanisms, config.layers):
            mixer = Mixer(name, rngs=rngs, dim=dim, heads=config.heads, causal=False, **options)
            blocks.append(Block(mixer, dim, config.mlp_ratio, dtype=dtype, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.norm = nnx.RMSNorm(dim, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(dim, config.classes, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "b height width channels"],
        *,
        key: jax.Array | None = None,
    ) -> Float[Array, "b classes"]:
        """Logits of every image.

        Args:
            images: `[b, height, width, channels]`.
            key: for mechanisms that draw random numbers.

        Raises:
            ValueError: images of another size.
        """
        height, width, channels = self.shape
        sizes: dict[str, Any] = {"height": height, "width": width, "channels": channels}
        check_shape("images", images, "b height width channels", sizes)
        x = self.embed(patches(images, self.patch))
        x = x + self.places(jnp.arange(x.shape[1]))
        for index, block in enumerate(self.blocks):
            x = block(x, key=None if key is None else jax.random.fold_in(key, index))
        return self.head(self.norm(x).mean(1)).astype(jnp.float32)


def patches(
    images: Float[Array, "b height width channels"], patch: int
) -> Float[Array, "b t pixels"]:
    """Cuts images into square patches, row by row, each as one vector.

    Args:
        images: `[b, height, width, channels]`.
        patch: side of a patch, a divisor of height and width.

    Example:
        >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
        [2.0, 3.0, 6.0, 7.0]
    """
    b, height, width, channels = images.shape
    grid = images.reshape(b, height // patch, patch, width // patch, patch, channels)
    return grid.swapaxes(2, 3).reshape(b, -1, patch * patch * channels)
