"""A convolution of images as a layer."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.mechanisms.layers.convolutions import convolution


class Convolution(nnx.Module):
    """A square convolution, zeros around, made of products of shifted images.

    Inside a loop, as training is, XLA runs convolutions on a CPU many times slower than outside of
    one: eight times for 3 x 3 of 8 channels, with the gradient. Products it runs as fast.

    Args:
        inputs, outputs: channels.
        width: side of the kernel, odd.
        use_bias: whether there is one.
        rngs: where the initial parameters come from: normal, of variance 1 / (width^2 inputs).

    Example:
        >>> Convolution(3, 8, rngs=nnx.Rngs(0))(jnp.zeros((2, 5, 6, 3))).shape
        (2, 5, 6, 8)
    """

    def __init__(
        self, inputs: int, outputs: int, width: int = 3, *, use_bias: bool = True, rngs: nnx.Rngs
    ):
        shape = (width, width, inputs, outputs)
        drawn = jax.random.normal(rngs.params(), shape) * (width * width * inputs) ** -0.5
        self.kernel = nnx.Param(drawn)
        self.bias = nnx.Param(jnp.zeros(outputs)) if use_bias else None

    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x n"]:
        """The image convolved."""
        return convolution(x, self.kernel[...], None if self.bias is None else self.bias[...])
