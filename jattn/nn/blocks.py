"""Pre-norm residual blocks."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.nn.mixer import Mixer


class MLP(nnx.Module):
    """`W_2 gelu(W_1 x)`.

    Args:
        dim: model dimension m.
        hidden: inner dimension.
        dtype: of the computation; the parameters are float32.
        rngs: where the initial parameters come from.

    Example:
        >>> MLP(8, 32, rngs=nnx.Rngs(0))(jax.numpy.ones((2, 8))).shape
        (2, 8)
    """

    def __init__(self, dim: int, hidden: int, *, dtype: Any = None, rngs: nnx.Rngs):
        self.up = nnx.Linear(dim, hidden, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(hidden, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        return self.down(jax.nn.gelu(self.up(x)))


class Block(nnx.Module):
    """`x + mixer(norm(x))`, then `x + mlp(norm(x))` (no MLP if `mlp_ratio` is zero).

    Args:
        mixer: what mixes tokens.
        dim: model dimension m.
        mlp_ratio: inner dimension of the MLP over m.
        dtype: of the computation; the parameters are float32.
        rngs: where the initial parameters come from.

    Example:
        >>> rngs = nnx.Rngs(0)
        >>> block = Block(Mixer("softmax_attention", dim=8, heads=2, rngs=rngs), 8, 4.0, rngs=rngs)
        >>> block(jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """

    def __init__(
        self, mixer: Mixer, dim: int, mlp_ratio: float, *, dtype: Any = None, rngs: nnx.Rngs
    ):
        self.mixer_norm = nnx.RMSNorm(dim, dtype=dtype, rngs=rngs)
        self.mixer = mixer
        hidden = round(dim * mlp_ratio)
        self.mlp_norm = nnx.RMSNorm(dim, dtype=dtype, rngs=rngs) if hidden else None
        self.mlp = MLP(dim, hidden, dtype=dtype, rngs=rngs) if hidden else None

    def _mix_channels(self, x: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        if self.mlp is None or self.mlp_norm is None:
            return x
        return x + self.mlp(self.mlp_norm(x))

    def __call__(self, x: Float[Array, "b t m"], **options: Any) -> Any:
        """Options go to the mixer: context, mask, positions, key, training, edit.

        In training it returns the mixer's auxiliary losses, too; see `Mixer`.
        """
        mixed = self.mixer(self.mixer_norm(x), **options)
        if options.get("training"):
            mixed, losses = mixed
            return self._mix_channels(x + mixed), losses
        return self._mix_channels(x + mixed)

    def step(self, x: Float[Array, "b m"], state: Any) -> tuple[Float[Array, "b m"], Any]:
        """One token, and the mixer's streaming state."""
        mixed, state = self.mixer.step(self.mixer_norm(x), state)
        return self._mix_channels(x + mixed), state

    def prefill(
        self, x: Float[Array, "b t m"], state: Any, length: Int[Array, ""] | int | None = None
    ) -> tuple[Float[Array, "b t m"], Any]:
        """The first tokens of all, and the mixer's empty state; see `Mixer.prefill`."""
        mixed, state = self.mixer.prefill(self.mixer_norm(x), state, length)
        return self._mix_channels(x + mixed), state
