"""One Flax NNX module for every mechanism."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.mechanisms import zoo
from jattn.mechanisms.mixer import Mixer as MixerPair


class Mixer(nnx.Module):
    """Wraps a mechanism of the zoo, or any `(init, apply)` pair, as a module.

    Args:
        mechanism: a name of `jattn.zoo.names()`, or a `Mixer` pair.
        rngs: where the initial parameters come from (stream `params`).
        dim, heads, causal, **options: of the mechanism, if it is given by name.

    Example:
        >>> import jax.numpy as jnp
        >>> mixer = Mixer("softmax_attention", dim=16, heads=4, causal=True, rngs=nnx.Rngs(0))
        >>> mixer(jnp.ones((1, 5, 16))).shape
        (1, 5, 16)
    """

    def __init__(self, mechanism: str | MixerPair, *, rngs: nnx.Rngs, **options: Any):
        if isinstance(mechanism, str):
            self.pair = zoo.make(mechanism, **options)
        elif options:
            raise ValueError(f"{next(iter(options))}: a Mixer pair takes no options")
        else:
            self.pair = mechanism
        params = self.pair.init(rngs.params())
        leaves, self.structure = jax.tree.flatten(params)
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
        self.params = nnx.Dict(
            {
                path.strip("[']").replace("']['", "_"): nnx.Param(leaf)
                for path, leaf in zip(paths, leaves, strict=True)
            }
        )
        self.names = tuple(self.params)

    def _pytree(self) -> Any:
        return jax.tree.unflatten(self.structure, [self.params[name][...] for name in self.names])

    def __call__(
        self,
        x: Float[Array, "b t m"],
        *,
        context: Float[Array, "b s m"] | None = None,
        mask: Any = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b t m"]:
        """Mixes a whole sequence; see `jattn.mechanisms.mixer.Mixer`."""
        return self.pair.apply(
            self._pytree(), x, context=context, mask=mask, positions=positions, key=key
        )

    def init_state(self, batch_size: int, max_length: int) -> Any:
        """An empty streaming state.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        if self.pair.init_state is None:
            raise ValueError("mechanism: it has no causal step form; make it with causal=True")
        return self.pair.init_state(self._pytree(), batch_size, max_length)

    def step(self, x: Float[Array, "b m"], state: Any) -> tuple[Float[Array, "b m"], Any]:
        """Mixes one token.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        if self.pair.step is None:
            raise ValueError("mechanism: it has no causal step form; make it with causal=True")
        return self.pair.step(self._pytree(), x, state)
