"""One form of a mechanism under test, and the programs that its checks share."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from jattn.mechanisms.mechanism import Mechanism

BATCH, TOKENS, DIM, HEADS = 2, 6, 8, 2
# The second row has padding inside and behind.
HOLES = np.array([[True] * TOKENS, [True, True, False, True, True, False]])


class Case:
    """One form of a mechanism, made, with parameters and inputs; each program is compiled once.

    Args:
        mechanism: its entry.
        causal: which form of a mixer.
        made: what its maker gives: a `Mixer`, `Gate`, `Pool` or `Pointer`.
        inputs: arrays that `run` takes, float32; the last has the tokens that a mask speaks of.
        run: `(params, *inputs, mask=None, **keywords) -> y`.
        where: which axis of y goes with those tokens; None: none does.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        causal: bool,
        made: Any,
        inputs: tuple[np.ndarray, ...],
        run: Callable[..., Any],
        where: int | None,
    ):
        self.mechanism, self.causal, self.made = mechanism, causal, made
        self.inputs, self.run, self.where = inputs, run, where
        self.params = jax.tree.map(np.asarray, jax.jit(made.init)(jax.random.key(0)))
        shape = jax.eval_shape(run, self.params, *inputs).shape
        self.weight = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
        self.apply = jax.jit(run)

        def loss(params, inputs):
            y = run(params, *inputs)
            return (self.weight.astype(y.dtype) * y).sum().astype(jnp.float32), y

        def masked_loss(params, inputs, mask):
            y = run(params, *inputs, mask=mask)
            return jnp.where(self.seen(mask, y.ndim), self.weight * y, 0).sum(), y

        self._gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        self._masked = jax.jit(jax.value_and_grad(masked_loss, (0, 1), has_aux=True))

    def seen(self, mask: Any, axes: int) -> Any:
        """Which outputs belong to real tokens, to be compared with y of so many axes."""
        if self.where is None:
            return np.ones((1,) * axes, bool)
        shape = [1] * axes
        shape[0], shape[self.where] = mask.shape
        return mask.reshape(shape)

    def of_tokens(self, y: np.ndarray, index: Any) -> np.ndarray:
        """Outputs of the tokens at an index; all of them, where none belong to tokens."""
        return (
            y
            if self.where is None
            else np.moveaxis(np.moveaxis(y, self.where, 0)[index], 0, self.where)
        )

    def gradient(self, params: Any, inputs: Any) -> tuple[np.ndarray, Any, Any]:
        """Output, and gradients of its weighted sum for parameters and inputs."""
        (_, y), (of_params, of_inputs) = self._gradient(params, inputs)
        return as_numpy((y, of_params, of_inputs))

    def masked(self, inputs: Any, mask: np.ndarray) -> tuple[np.ndarray, Any, Any]:
        """The same where some tokens are padding, whose outputs do not count."""
        (_, y), (of_params, of_inputs) = self._masked(self.params, inputs, mask)
        return as_numpy((y, of_params, of_inputs))

    @functools.cached_property
    def plain(self) -> tuple[np.ndarray, Any, Any]:
        """Output and gradients at the inputs, in float32."""
        return self.gradient(self.params, self.inputs)

    @property
    def y(self) -> np.ndarray:
        """Output at the inputs."""
        return self.plain[0]

    @property
    def others(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Other inputs: these, 2 minus these, with other tokens from 3 on, with tokens permuted."""
        *before, tokens = self.inputs
        moved = tokens.copy()
        moved[:, 3:] += 1 + draw(5, *moved[:, 3:].shape)
        return {
            "same": self.inputs,
            "other": tuple(2 - array for array in self.inputs),
            "moved": (*before, moved),
            "permuted": (*before, tokens[:, self.permutation]),
        }

    permutation = np.array([3, 0, 5, 1, 4, 2])

    @functools.cached_property
    def many(self) -> dict[str, np.ndarray]:
        """Outputs at all `others`, in one program that is mapped over them."""
        batch = tuple(np.stack(arrays) for arrays in zip(*self.others.values(), strict=True))
        axes = (None, *(0 for _ in self.inputs))
        ys = as_numpy(
            jax.jit(jax.vmap(lambda p, *x: self.run(p, *x), in_axes=axes))(self.params, *batch)
        )
        return dict(zip(self.others, ys, strict=True))

    def with_tokens(self, tokens: np.ndarray) -> tuple[np.ndarray, ...]:
        """The inputs with others as the tokens that a mask speaks of."""
        return *self.inputs[:-1], tokens


def as_numpy(tree: Any) -> Any:
    """Arrays as NumPy's, for checks that compile nothing; half precision as float32."""

    def host(array):
        array = np.asarray(array)
        return array.astype(np.float32) if array.dtype.itemsize == 2 else array

    return jax.tree.map(host, tree)


def close(got: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Checks that arrays agree, relative to the largest number expected where that is above 1."""
    largest = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(got, expected, atol=tolerance * max(1.0, float(largest)))


def draw(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def refused(call: Callable[[], Any], said: str) -> None:
    """Checks that a call raises a ValueError of one line that a regular expression finds.

    Raises:
        AssertionError: it does not, or says something else.
    """
    try:
        call()
    except ValueError as error:
        line = str(error)
        assert re.search(said, line), f"expected an error that says {said!r}, got {line!r}"
        assert "\n" not in line, f"expected one line, got {line!r}"
        return
    raise AssertionError(f"expected a ValueError that says {said!r}, got none")


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Meets the errors that a user meets, where types are checked at run time."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def leaves_by_name(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of a tree by their paths, e.g. `memory/0/weight`."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}
