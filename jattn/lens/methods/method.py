"""What the register says of a method, and made-up inputs that its conformance tests use."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.nn import Llama, LlamaConfig
from jattn.nn.llama import llama_init

Kind = Literal["maps", "edit", "readout", "training"]


class Method(NamedTuple):
    """One published method.

    Attributes:
        name: of the function.
        title: of the paper.
        arxiv: its id; None where there is none that we know.
        kind: `"maps"` changes attention maps `(probs, ...) -> probs`; `"edit"` makes an edit for
            `lens.run` of a model with 2 layers, 4 heads, 2 key-value heads, heads of size 4 and 8
            tokens; `"readout"` measures; `"training"` is for a loss.
        function: the method.
        example: `key -> options`, all its arguments by name, of a small size; maps are `probs`.
        identity: arguments under which maps stay as they are, or the edit changes nothing; None
            where there are none.
        bounds: of all numbers of a readout, None where there are none.
    """

    name: str
    title: str
    arxiv: str | None
    kind: Kind
    function: Callable[..., Any]
    example: Callable[[jax.Array], dict[str, Any]]
    identity: Mapping[str, Any] | None = None
    bounds: tuple[float, float] | None = None


def example_maps(key: jax.Array, *shape: int, sharp: float = 2.0) -> Float[Array, "*batch t t"]:
    """Causal maps `[..., t, t]` with a sink at the first key, as trained models have them."""
    logits = sharp * jax.random.normal(key, shape)
    logits = logits.at[..., 0].add(1.0)
    seen = jnp.tril(jnp.ones(shape[-2:], bool))
    return jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)


def example_model(key: jax.Array) -> Llama:
    """A model of random weights, of the sizes that examples of edits are for."""
    config = LlamaConfig(vocab_size=11, dim=16, layers=2, heads=4, kv_heads=2, hidden=24)
    return Llama(config, weights=llama_init(key, config))
