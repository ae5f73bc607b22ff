"""A small network from the frames of a video to the change of its pulse."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.mechanisms.channel.soft_mask_attention import frame_differences, temporal_shift
from jattn.nn import Convolution, Gate


class PulseNetwork(nnx.Module):
    """Stems of frames and of their differences, shifted convolutions, a soft mask, a mean.

    Args:
        channels: of features.
        mask: whether a soft mask says where to look; else all places count alike.
        shift: whether channels of neighbouring frames are exchanged before convolutions.
        differences: whether there is a stem of differences.
        rngs: where the initial parameters come from.
    """

    def __init__(
        self, channels: int, *, mask: bool, shift: bool, differences: bool, rngs: nnx.Rngs
    ):
        convolution = lambda inputs: Convolution(inputs, channels, rngs=rngs)
        self.shift = shift
        self.frames = convolution(3)
        self.differences = convolution(3) if differences else None
        self.first, self.second = convolution(channels), convolution(channels)
        self.mask = Gate("soft_mask_attention", dim=channels, rngs=rngs) if mask else None
        self.head = nnx.Linear(channels, 1, rngs=rngs)

    def __call__(self, video: Float[Array, "b t y x 3"]) -> Float[Array, "b t"]:
        """The change of the pulse in each frame, up to scale."""
        features, seen = self._features(video)
        if self.mask is not None:
            # What a place looks like says whether it counts; what it does is counted.
            features = features * self._factors(self.mask, seen)[..., None]
        return self.head(features.mean((2, 3)))[..., 0]

    def looks(self, video: Float[Array, "b t y x 3"]) -> Float[Array, "b t y x"]:
        """Shares of the look at each place, one in all for every frame."""
        seen = self._features(video)[1]
        factors = jnp.ones(seen.shape[:-1]) if self.mask is None else self._factors(self.mask, seen)
        return factors / factors.sum((2, 3), keepdims=True)

    def _factors(self, mask: Gate, seen: Array) -> Array:
        return mask.factors(seen.reshape(-1, *seen.shape[2:])).reshape(seen.shape[:-1])

    def _features(self, video: Array) -> tuple[Array, Array]:
        """What happens at each place, and what it looks like."""
        look = (video - video.mean((1, 2, 3), keepdims=True)) / 0.1
        seen = jax.nn.relu(self._each_frame(self.frames, look))
        x = self._each_frame(self.frames, look)
        if self.differences is not None:
            # A hundredth is a large change of a pixel.
            x = x + self._each_frame(
                self.differences, 100 * frame_differences(video, normalized=True)
            )
        for convolution in (self.first, self.second):
            x = temporal_shift(x) if self.shift else x
            x = jnp.tanh(self._each_frame(convolution, x))
        return x, seen

    def _each_frame(self, convolution: Convolution, x: Array) -> Array:
        return convolution(x.reshape(-1, *x.shape[2:])).reshape(*x.shape[:-1], -1)
