"""Flax NNX modules for gates, pools and pointers of the zoo."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float

from jattn.mechanisms import zoo


class _Wrapped(nnx.Module):
    """A mechanism of one kind, its parameters in the same pytree as its pair's."""

    kind: str

    def __init__(self, name: str, *, rngs: nnx.Rngs, **options: Any):
        entry = zoo.info(name)
        if entry.kind != self.kind:
            raise ValueError(f"mechanism: expected a {self.kind}, got {name!r}, a {entry.kind}")
        self.pair = zoo.make(name, **options)
        arrays = self.pair.init(rngs.params())

        def variable(path, array):
            average = path[0].key in entry.statistics
            return (nnx.BatchStat if average else nnx.Param)(array)

        self.params = nnx.data(jax.tree_util.tree_map_with_path(variable, arrays))

    def arrays(self) -> Any:
        """The parameters as the functions of the pair take them."""
        is_variable = lambda node: isinstance(node, nnx.Variable)
        return jax.tree.map(lambda variable: variable[...], self.params, is_leaf=is_variable)

    def _run(self, x: Array, mask: Any, training: bool) -> Array:
        """The output; in training it is normalised over the batch, and averages are moved."""
        if not (training and self.pair.train is not None):
            return self.pair.apply(self.arrays(), x, mask=mask)
        y, statistics = self.pair.train(self.arrays(), x, mask=mask)
        for name, value in statistics.items():
            self.params["statistics"][name][...] = value
        return y


class Gate(_Wrapped):
    """Wraps a gate of the zoo as a module.

    Its parameters are `nnx.Param`s in `params`; averages over training are `nnx.BatchStat`s there.

    Args:
        name: one of `jattn.zoo.names(kind="gate")`.
        rngs: where the initial parameters come from (stream `params`).
        **options: `dim`, and the mechanism's own.

    Raises:
        ValueError: a mechanism of another kind, or what `jattn.zoo.make` refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> gate = Gate("srm", dim=8, rngs=nnx.Rngs(0))
        >>> gate(jnp.ones((2, 5, 5, 8)), training=True).shape
        (2, 5, 5, 8)
    """

    kind = "gate"

    def __call__(
        self,
        x: Float[Array, "b *space m"],
        *,
        mask: Bool[Array, " b *space"] | None = None,
        training: bool = False,
    ) -> Float[Array, "b *space m"]:
        """Features times their factors; in training averages are moved, in place."""
        return self._run(x, mask, training)

    def factors(
        self, x: Float[Array, "b *space m"], *, mask: Bool[Array, " b *space"] | None = None
    ) -> Array:
        """The factors alone, 1 long along axes that share them: to gate something else by x.

        Example:
            >>> import jax.numpy as jnp
            >>> Gate("eca", dim=8, rngs=nnx.Rngs(0)).factors(jnp.ones((2, 5, 5, 8))).shape
            (2, 1, 1, 8)
        """
        return self.pair.factors(self.arrays(), x, mask=mask)


class Pool(_Wrapped):
    """Wraps a pool of the zoo as a module; see `Gate`.

    Example:
        >>> import jax.numpy as jnp
        >>> pool = Pool("efficient_probing", dim=8, rngs=nnx.Rngs(0))
        >>> pool(jnp.ones((2, 5, 8))).shape
        (2, 1, 8)
    """

    kind = "pool"

    def __call__(
        self,
        x: Float[Array, "b n m"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        training: bool = False,
    ) -> Float[Array, "b k e"]:
        """Tokens into k of them; in training averages are moved, in place."""
        return self._run(x, mask, training)


class Pointer(_Wrapped):
    """Wraps a pointer of the zoo as a module; see `Gate`.

    Example:
        >>> import jax.numpy as jnp
        >>> pointer = Pointer("pointer_network", dim=8, rngs=nnx.Rngs(0))
        >>> pointer(jnp.ones((2, 3, 8)), jnp.ones((2, 5, 8))).shape
        (2, 3, 5)
    """

    kind = "pointer"

    def __call__(
        self,
        query: Float[Array, "b t m"],
        tokens: Float[Array, "b s m"],
        *,
        mask: Bool[Array, "b s"] | None = None,
    ) -> Float[Array, "b t n"]:
        """Logits of pointing at each token."""
        return self.pair.apply(self.arrays(), query, tokens, mask=mask)
