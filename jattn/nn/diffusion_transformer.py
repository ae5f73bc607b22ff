"""A text-to-image denoiser: patches attend to each other by any mechanism, and to the caption."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number, check_shape
from jattn.mechanisms.mixer import Parts
from jattn.nn.blocks import MLP
from jattn.nn.mixer import Mixer, make_pair
from jattn.nn.patches import check_patch, patches, unpatched
from jattn.nn.transformer import Layer, mechanisms_by_layer

SINES = 32  # frequencies of a time
Edit = Callable[[Parts], Parts]


@dataclasses.dataclass(frozen=True)
class DiffusionTransformerConfig:
    """Configuration of a `DiffusionTransformer`.

    Attributes:
        vocab_size: number of words.
        caption: words of a caption, padding among them.
        height, width, channels: of the images.
        patch: side of a patch, a divisor of height and width.
        dim: model dimension m.
        heads: heads of every layer.
        layers: number of layers.
        mechanisms: how patches see each other: one for all layers, or a sequence of one per layer;
            each a name of the zoo or `(name, options)`, of one that can be bidirectional.
        mlp_ratio: inner dimension of the MLPs over m.

    Raises:
        ValueError: a value that does not fit.

    Example:
        >>> DiffusionTransformerConfig(vocab_size=9, caption=4, height=28, patch=5)
        Traceback (most recent call last):
        ...
        ValueError: patch: expected a divisor of height=28, got 5
    """

    vocab_size: int
    caption: int
    height: int = 24
    width: int = 24
    channels: int = 3
    patch: int = 3
    dim: int = 64
    heads: int = 4
    layers: int = 4
    mechanisms: Layer | Sequence[Layer] = "softmax_attention"
    mlp_ratio: float = 4.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.name not in ("mechanisms", "mlp_ratio"):
                check_count(field.name, getattr(self, field.name))
        check_patch(self.patch, height=self.height, width=self.width)
        check_number("mlp_ratio", self.mlp_ratio, above=0)
        for name, options in mechanisms_by_layer(self.mechanisms, self.layers):
            make_pair(name, dim=self.dim, heads=self.heads, causal=False, **options)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along each side."""
        return self.height // self.patch, self.width // self.patch


class _Layer(nnx.Module):
    """Self-attention, cross-attention to the caption, MLP; the time scales, shifts and gates.

        x += g self(c norm(x) + d);   x += cross(norm(x), words);   x += g' mlp(c' norm(x) + d')

    Gates g, scales c - 1 and shifts d are one linear map of the time, which starts at zero.
    """  # fmt: skip

    def __init__(
        self, layer: tuple[str, Mapping], config: DiffusionTransformerConfig, rngs: nnx.Rngs
    ):
        dim, (name, options) = config.dim, layer
        norm = lambda affine: nnx.LayerNorm(dim, use_bias=affine, use_scale=affine, rngs=rngs)
        sizes: dict[str, Any] = dict(dim=dim, heads=config.heads, causal=False)
        self.norms = nnx.List([norm(False), norm(True), norm(False)])
        self.itself = Mixer(name, rngs=rngs, **sizes, **options)
        self.cross = Mixer("softmax_attention", rngs=rngs, **sizes)
        self.mlp = MLP(dim, round(dim * config.mlp_ratio), rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.modulate = nnx.Linear(dim, 6 * dim, kernel_init=zeros, rngs=rngs)

    def __call__(self, x, words, time, itself: Edit | None, cross: Edit | None):
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.split(
            self.modulate(jax.nn.silu(time))[:, None], 6, axis=-1
        )
        inner = self.norms[0](x) * (1 + scale) + shift
        x = x + gate * self.itself(inner, edit=itself)
        x = x + self.cross(self.norms[1](x), context=words, edit=cross)
        return x + gate_mlp * self.mlp(self.norms[2](x) * (1 + scale_mlp) + shift_mlp)


class DiffusionTransformer(nnx.Module):
    """Predicts the velocity of noisy images from their time and caption.

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Reference:
        arXiv 2212.09748; cross-attention as in arXiv 2310.00426.

    Example:
        >>> config = DiffusionTransformerConfig(
        ...     vocab_size=9, caption=4, height=4, width=4, patch=2, dim=16, layers=1
        ... )
        >>> model = DiffusionTransformer(config, rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((2, 4, 4, 3)), jnp.ones(2), jnp.zeros((2, 4), int)).shape
        (2, 4, 4, 3)
    """

    def __init__(self, config: DiffusionTransformerConfig, *, rngs: nnx.Rngs):
        dim = config.dim
        self.config = config
        self.embed = nnx.Linear(config.patch**2 * config.channels, dim, rngs=rngs)
        self.places = nnx.Embed(config.grid[0] * config.grid[1], dim, rngs=rngs)
        self.words = nnx.Embed(config.vocab_size, dim, rngs=rngs)
        self.orders = nnx.Embed(config.caption, dim, rngs=rngs)
        self.time = nnx.List([nnx.Linear(n, dim, rngs=rngs) for n in (2 * SINES, dim)])
        layers = mechanisms_by_layer(config.mechanisms, config.layers)
        self.plain_softmax = tuple(n == "softmax_attention" and not more for n, more in layers)
        self.layers = nnx.List([_Layer(layer, config, rngs) for layer in layers])
        self.norm = nnx.LayerNorm(dim, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        pixels = config.patch**2 * config.channels
        self.head = nnx.Linear(dim, pixels, kernel_init=zeros, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "b height width channels"],
        time: Float[Array, " b"],
        caption: Int[Array, "b n"],
        *,
        edits: Callable[[int], tuple[Edit | None, Edit | None]] | None = None,
    ) -> Float[Array, "b height width channels"]:
        """Velocities of noisy images.

        Args:
            images: `[b, height, width, channels]`.
            time: of each, in [0, 1].
            caption: words of each, `[b, caption]`.
            edits: for a layer's number those of its self-attention and its cross-attention, or
                None; see `jattn.lens.run_denoiser`.

        Raises:
            ValueError: sizes that do not fit.
        """
        config, sizes = self.config, {}
        expected = dict(height=config.height, width=config.width, channels=config.channels)
        check_shape("images", images, "b height width channels", sizes | expected)
        check_shape("caption", caption, "b n", dict(b=images.shape[0], n=config.caption))
        check_shape("time", time, "b", dict(b=images.shape[0]))
        x = self.embed(patches(images, config.patch))
        x = x + self.places(jnp.arange(x.shape[1]))
        words = self.words(caption) + self.orders(jnp.arange(config.caption))
        angle = 1000 * time[:, None] * jnp.exp(-jnp.linspace(0, jnp.log(1000.0), SINES))
        sines = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
        moment = self.time[1](jax.nn.silu(self.time[0](sines)))
        for index, layer in enumerate(self.layers):
            itself, cross = (None, None) if edits is None else edits(index)
            x = layer(x, words, moment, itself, cross)
        return unpatched(self.head(self.norm(x)), config.grid, config.patch)
