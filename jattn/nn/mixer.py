"""One Flax NNX module for every mechanism."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.mechanisms import zoo
from jattn.mechanisms.mixer import Mixer as MixerPair

NO_STEP = "mechanism: expected one with a step form, as streaming ones made with causal=True have"


class Mixer(nnx.Module):
    """Wraps a mechanism of the zoo, or any `(init, apply)` pair, as a module.

    Its parameters are `nnx.Param`s in `params`, in the same pytree as the pair's.

    Args:
        mechanism: a name of `jattn.zoo.names()`, or a pair, a `jattn.mechanisms.mixer.Mixer`.
        rngs: where the initial parameters come from (stream `params`).
        **options: `dim`, `heads`, `causal` and the mechanism's own, if it is given by name.

    Raises:
        ValueError: an unknown name or option, a size that does not fit, or options of a pair.

    Example:
        >>> import jax.numpy as jnp
        >>> mixer = Mixer("softmax_attention", dim=16, heads=4, causal=True, rngs=nnx.Rngs(0))
        >>> mixer(jnp.ones((1, 5, 16))).shape
        (1, 5, 16)
        >>> sorted(mixer.params)
        ['key', 'output', 'query', 'value']
    """

    def __init__(self, mechanism: str | MixerPair, *, rngs: nnx.Rngs, **options: Any):
        if isinstance(mechanism, str):
            self.pair = zoo.make(mechanism, **options)
        elif options:
            raise ValueError(f"{next(iter(options))}: a pair is made already and takes no options")
        else:
            self.pair = mechanism
        # The same pytree as the pair's, with a Param in place of every array.
        self.params = nnx.data(jax.tree.map(nnx.Param, self.pair.init(rngs.params())))

    def arrays(self) -> Any:
        """The parameters as the functions of the pair take them."""
        is_param = lambda node: isinstance(node, nnx.Param)
        return jax.tree.map(lambda param: param[...], self.params, is_leaf=is_param)

    def __call__(
        self,
        x: Float[Array, "b t m"],
        *,
        context: Float[Array, "#b s m"] | None = None,
        mask: Any = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b t m"]:
        """Mixes a whole sequence; see `jattn.mechanisms.mixer.Mixer`."""
        return self.pair.apply(
            self.arrays(), x, context=context, mask=mask, positions=positions, key=key
        )

    def init_state(self, batch_size: int, max_length: int) -> Any:
        """An empty streaming state.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        if self.pair.init_state is None:
            raise ValueError(NO_STEP)
        return self.pair.init_state(self.arrays(), batch_size, max_length)

    def step(self, x: Float[Array, "b m"], state: Any) -> tuple[Float[Array, "b m"], Any]:
        """Mixes one token.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        if self.pair.step is None:
            raise ValueError(NO_STEP)
        return self.pair.step(self.arrays(), x, state)
