"""One Flax NNX module for every mechanism."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.mechanisms import zoo
from jattn.mechanisms.mixer import NO_STEP, Parts, edit_parts, prefill
from jattn.mechanisms.mixer import Mixer as MixerPair


def make_pair(name: str, **options: Any) -> MixerPair:
    """Makes the pair of a mechanism that mixes tokens, by its name in the zoo.

    Raises:
        ValueError: as `jattn.zoo.make`, and for a mechanism of another kind.

    Example:
        >>> make_pair("squeeze_excitation", dim=16)
        Traceback (most recent call last):
        ...
        ValueError: mechanism: expected a mixer of tokens, got 'squeeze_excitation', a gate
    """
    kind = zoo.info(name).kind
    if kind != "mixer":
        raise ValueError(f"mechanism: expected a mixer of tokens, got {name!r}, a {kind}")
    return zoo.make(name, **options)


class Mixer(nnx.Module):
    """Wraps a mechanism of the zoo, or any `(init, apply)` pair, as a module.

    Its parameters are `nnx.Param`s in `params`, in the same pytree as the pair's; averages over
    training (`Mixer.statistics` of the pair) are `nnx.BatchStat`s there, which no optimizer of
    `nnx.Param`s moves.

    Args:
        mechanism: a name of `jattn.zoo.names(kind="mixer")`, or a pair, a
            `jattn.mechanisms.mixer.Mixer`.
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
            self.pair = make_pair(mechanism, **options)
        elif options:
            raise ValueError(f"{next(iter(options))}: a pair is made already and takes no options")
        else:
            self.pair = mechanism
        # The same pytree as the pair's, with a variable in place of every array.
        arrays = self.pair.init(rngs.params())
        self.params = nnx.data(jax.tree_util.tree_map_with_path(self._variable, arrays))

    def _variable(self, path: Any, array: jax.Array) -> nnx.Variable:
        return (nnx.BatchStat if _name(path) in self.pair.statistics else nnx.Param)(array)

    def arrays(self) -> Any:
        """The parameters as the functions of the pair take them."""
        return jax.tree.map(lambda variable: variable[...], self.params, is_leaf=_is_variable)

    def __call__(
        self,
        x: Float[Array, "b t m"],
        *,
        context: Float[Array, "#b s m"] | None = None,
        mask: Any = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
        training: bool = False,
        edit: Callable[[Parts], Parts] | None = None,
    ) -> Any:
        """Mixes a whole sequence, to `[b, t, m]`; see `jattn.mechanisms.mixer.Mixer`.

        In training it also returns the mixer's auxiliary losses by name, and moves its statistics,
        in place, as `nnx.BatchNorm` does; the output is that of before. With `edit` some of the
        pair's parts are others for this once; see `jattn.mechanisms.mixer.edit_parts`.
        """
        arrays = self.arrays()
        options = dict(context=context, mask=mask, positions=positions, key=key)
        pair = self.pair if edit is None else edit_parts(self.pair, edit)
        y = pair.apply(arrays, x, **options)
        if not training:
            return y
        if self.pair.auxiliary is None:
            return y, {}
        losses, values = self.pair.auxiliary(arrays, x, **options)
        leaves = jax.tree_util.tree_leaves_with_path(self.params, is_leaf=_is_variable)
        for path, variable in leaves:
            if _name(path) in values:
                variable[...] = values[_name(path)]
        return y, losses

    def init_state(self, batch_size: int, max_length: int, *, dtype: Any = None) -> Any:
        """An empty streaming state, for tokens of a dtype; default that of the parameters.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        if self.pair.init_state is None:
            raise ValueError(NO_STEP)
        options = {} if dtype is None else {"dtype": dtype}
        return self.pair.init_state(self.arrays(), batch_size, max_length, **options)

    def step(self, x: Float[Array, "b m"], state: Any) -> tuple[Float[Array, "b m"], Any]:
        """Mixes one token.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        if self.pair.step is None:
            raise ValueError(NO_STEP)
        return self.pair.step(self.arrays(), x, state)

    def prefill(
        self, x: Float[Array, "b t m"], state: Any, length: Int[Array, ""] | int | None = None
    ) -> tuple[Float[Array, "b t m"], Any]:
        """Mixes the first tokens of all, into an empty state; see `jattn.mechanisms.mixer.prefill`.

        Raises:
            ValueError: the mechanism has no causal step form.
        """
        return prefill(self.pair, self.arrays(), x, state, length)


def statistics(module: nnx.Module) -> Any:
    """The averages over training in a module: the second thing that a loss for `fit` may return.

    Args:
        module: any, after a call with `training=True`.

    Returns:
        `nnx.state(module)`, with None in place of every variable that is no `nnx.BatchStat`.

    Example:
        >>> import jax.numpy as jnp
        >>> mixer = Mixer("affine_attention", dim=16, heads=4, rngs=nnx.Rngs(0))
        >>> y, losses = mixer(jnp.zeros((1, 5, 16)), training=True)  # alpha is 0.5, its average 0
        >>> [round(float(value), 4) for value in jax.tree.leaves(statistics(mixer))]
        [0.05]
    """
    keep = lambda variable: variable if isinstance(variable, nnx.BatchStat) else None
    return jax.tree.map(keep, nnx.state(module), is_leaf=_is_variable)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
