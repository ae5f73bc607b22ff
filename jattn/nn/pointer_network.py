"""A recurrent encoder and decoder that points at its inputs (arXiv 1506.03134)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_flag, check_shape
from jattn.mechanisms import zoo
from jattn.nn.kinds import Pointer


@dataclasses.dataclass(frozen=True)
class PointerNetworkConfig:
    """Configuration of a `PointerNetwork`.

    Attributes:
        inputs: numbers of a point.
        dim: size m of states and of embedded points.
        pointer: a name of `zoo.names(kind="pointer")`, made with `stop=True`. Index 0 must be the
            stop, as that of `"pointer_network"` is.

    Raises:
        ValueError: a value that does not fit.
    """

    inputs: int = 2
    dim: int = 128
    pointer: str = "pointer_network"

    def __post_init__(self):
        check_count("inputs", self.inputs)
        check_count("dim", self.dim)
        if zoo.info(self.pointer).name != "pointer_network":
            raise ValueError(
                f"pointer: expected pointer_network, whose stop is index 0, got {self.pointer!r}"
            )


class PointerNetwork(nnx.Module):
    """An LSTM reads points; another, from its last state, says which one comes next, or stops.

    The decoder is given the point that it pointed at, not a context vector. Points are embedded by
    a learned linear map, which trains faster than bare coordinates do.

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Reference:
        arXiv 1506.03134.

    Example:
        >>> model = PointerNetwork(PointerNetworkConfig(dim=8), rngs=nnx.Rngs(0))
        >>> points = jnp.ones((1, 5, 2))
        >>> model(points, jnp.array([[3, 1, 0]])).shape
        (1, 3, 6)
    """

    def __init__(self, config: PointerNetworkConfig, *, rngs: nnx.Rngs):
        dim = config.dim
        self.embed = nnx.Linear(config.inputs, dim, rngs=rngs)
        self.start = nnx.Param(0.08 * jax.random.normal(rngs.params(), (dim,)))
        self.encoder = nnx.OptimizedLSTMCell(dim, dim, rngs=rngs)
        self.decoder = nnx.OptimizedLSTMCell(dim, dim, rngs=rngs)
        self.pointer = Pointer(config.pointer, dim=dim, stop=True, rngs=rngs)

    def __call__(
        self,
        points: Float[Array, "b n i"],
        targets: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b n"] | None = None,
    ) -> Float[Array, "b t p"]:
        """Logits at each step where those before are as given; 0 is the stop, i is point i.

        Args:
            points: what may be pointed at.
            targets: what has been, step by step.
            mask: True for real points, which stand in front; default all are.
        """
        sizes: dict[str, int] = {}
        check_shape("points", points, "b n i", sizes)
        check_shape("targets", targets, "b t", sizes)
        embedded, states, carry = self._read(points, mask)
        given = self._given(embedded, targets)
        shifted = jnp.concatenate([self._first(points)[:, None], given[:, :-1]], axis=1)

        def step(carry, x):
            carry, y = self.decoder(carry, x)
            return carry, y

        decoded = jax.lax.scan(step, carry, jnp.moveaxis(shifted, 1, 0))[1]
        return self.pointer(jnp.moveaxis(decoded, 0, 1), states, mask=mask)

    def decode(
        self,
        points: Float[Array, "b n i"],
        steps: int,
        *,
        mask: Bool[Array, "b n"] | None = None,
        tour: bool = False,
    ) -> Int[Array, "b t"]:
        """The likeliest point at each step; 0, and nothing but 0 behind it, where it stops.

        Args:
            points: what may be pointed at.
            steps: how many are taken.
            mask: True for real points, which stand in front; default all are.
            tour: points at none twice, and stops only when all have been.
        """
        check_count("steps", steps)
        check_flag("tour", tour)
        embedded, states, carry = self._read(points, mask)
        b, n = points.shape[:2]
        real = jnp.ones((b, n), bool) if mask is None else mask

        def step(state, _):
            carry, x, seen, stopped = state
            carry, y = self.decoder(carry, x)
            logits = self.pointer(y[:, None], states, mask=mask)[:, 0]
            if tour:
                left = real & ~seen
                open_now = jnp.concatenate([~left.any(1, keepdims=True), left], axis=1)
                logits = jnp.where(open_now, logits, -jnp.inf)
            chosen = jnp.where(stopped, 0, logits.argmax(-1))
            seen = seen | (chosen[:, None] == jnp.arange(1, n + 1))
            x = self._given(embedded, chosen[:, None])[:, 0]
            return (carry, x, seen, stopped | (chosen == 0)), chosen

        begin = (carry, self._first(points), jnp.zeros((b, n), bool), jnp.zeros(b, bool))
        return jax.lax.scan(step, begin, length=steps)[1].T

    def _first(self, points: Array) -> Array:
        return jnp.broadcast_to(self.start[...], (len(points), self.start.shape[0]))

    def _given(self, embedded: Array, targets: Array) -> Array:
        """The embedded points at indices; the start for the stop, behind which nothing counts."""
        index = jnp.maximum(targets - 1, 0)[..., None]
        found = jnp.take_along_axis(embedded, index, axis=1)
        return jnp.where(targets[..., None] == 0, self.start[...], found)

    def _read(self, points: Array, mask: Any) -> tuple[Array, Array, Any]:
        """Embedded points, the encoder's states, and what it ends in behind the last real point."""
        embedded = self.embed(points)
        real = jnp.ones(points.shape[:2], bool) if mask is None else mask
        zeros = jnp.zeros((len(points), embedded.shape[-1]), embedded.dtype)

        def step(carry, given):
            x, there = given
            after, y = self.encoder(carry, x)
            keep = lambda new, old: jnp.where(there[:, None], new, old)
            return jax.tree.map(keep, after, carry), y

        along = jnp.moveaxis(embedded, 1, 0), real.T
        carry, states = jax.lax.scan(step, (zeros, zeros), along)
        return embedded, jnp.moveaxis(states, 0, 1), carry


def pointing_loss(logits: Float[Array, "b t p"], targets: Int[Array, "b t"]) -> Float[Array, ""]:
    """Mean cross entropy of each step up to the first stop, which counts.

    Example:
        >>> logits = jnp.zeros((1, 3, 4))
        >>> round(float(pointing_loss(logits, jnp.array([[2, 0, 0]]))), 4)
        1.3863
    """
    ended = jnp.cumsum(targets == 0, axis=1) - (targets == 0)
    counts = ended == 0
    logs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(logs, targets[..., None], axis=2)[..., 0]
    return -jnp.where(counts, chosen, 0).sum() / counts.sum()
