"""A transformer whose every layer may mix tokens by another mechanism."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_choice, check_shape
from jattn.mechanisms import zoo
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer

POSITIONS = ("none", "learned", "rotary")
# A layer: a name of the zoo, or a name with the mechanism's options.
Layer = str | tuple[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """What a `Transformer` is made of.

    Attributes:
        vocab_size: number of tokens.
        dim: model dimension m.
        heads: heads of every layer.
        layers: number of layers.
        mechanisms: one for all layers, or a sequence of one per layer; each a name of the zoo or
            `(name, options)`.
        causal: a decoder (True) or an encoder.
        mlp_ratio: inner dimension of the MLPs over m; 0 leaves them out.
        positions: `"none"`, `"learned"` (added to embeddings), or `"rotary"` (in those mechanisms
            that have the option `rotary`; at least one must).
        max_length: tokens that learned positions reach to.
        tie_embeddings: read out with the transposed token embedding.
    """

    vocab_size: int
    dim: int = 128
    heads: int = 4
    layers: int = 2
    mechanisms: Layer | Sequence[Layer] = "softmax_attention"
    causal: bool = True
    mlp_ratio: float = 4.0
    positions: str = "rotary"
    max_length: int = 1024
    tie_embeddings: bool = True

    def __post_init__(self):
        for field in ("vocab_size", "dim", "heads", "layers", "max_length"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: expected at least 1, got {getattr(self, field)}")
        if self.mlp_ratio < 0:
            raise ValueError(f"mlp_ratio: expected at least 0, got {self.mlp_ratio}")
        check_choice("positions", self.positions, POSITIONS)
        per_layer = self.per_layer()
        if len(per_layer) != self.layers:
            raise ValueError(
                f"mechanisms: expected one, or one for each of {self.layers} layers, "
                f"got {len(per_layer)}"
            )
        if self.positions == "rotary" and not any(rotates(name) for name, _ in per_layer):
            raise ValueError(
                "positions: no layer's mechanism can rotate; use positions='learned' or 'none'"
            )

    def per_layer(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and options of every layer's mechanism."""
        chosen = self.mechanisms
        one = isinstance(chosen, str) or (
            isinstance(chosen, tuple) and len(chosen) == 2 and isinstance(chosen[1], Mapping)
        )
        entries = [chosen] * self.layers if one else list(chosen)
        pairs = [(entry, {}) if isinstance(entry, str) else entry for entry in entries]
        return [(name, dict(options)) for name, options in pairs]  # type: ignore[misc]


def rotates(name: str) -> bool:
    """Whether a mechanism takes rotary positions."""
    return "rotary" in zoo.options(name)


class Transformer(nnx.Module):
    """Token embedding, pre-norm blocks, read-out.

    Args:
        config: what it is made of.
        rngs: where the initial parameters come from.

    Example:
        A model as a module, and as a pure function of its parameters:

        >>> config = TransformerConfig(vocab_size=50, dim=16, layers=2,
        ...                            mechanisms=("softmax_attention", "sigmoid_attention"))
        >>> model = Transformer(config, rngs=nnx.Rngs(0))
        >>> tokens = jnp.zeros((1, 7), int)
        >>> model(tokens).shape
        (1, 7, 50)
        >>> definition, params = nnx.split(model, nnx.Param)
        >>> jax.jit(lambda p, tokens: nnx.merge(definition, p)(tokens))(params, tokens).shape
        (1, 7, 50)
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, config.dim, rngs=rngs)
        learned = config.positions == "learned"
        self.places = nnx.Embed(config.max_length, config.dim, rngs=rngs) if learned else None
        blocks = []
        for name, options in config.per_layer():
            if config.positions == "rotary" and rotates(name):
                options = {"rotary": True} | options
            mixer = Mixer(
                name,
                dim=config.dim,
                heads=config.heads,
                causal=config.causal,
                rngs=rngs,
                **options,
            )
            blocks.append(Block(mixer, config.dim, config.mlp_ratio, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.norm = nnx.RMSNorm(config.dim, rngs=rngs)
        tied = config.tie_embeddings
        self.head = (
            None if tied else nnx.Linear(config.dim, config.vocab_size, use_bias=False, rngs=rngs)
        )

    def _read_out(self, x: Float[Array, "*batch m"]) -> Float[Array, "*batch vocab"]:
        x = self.norm(x)
        return self.embed.attend(x) if self.head is None else self.head(x)

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b t"] | None = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b t vocab"]:
        """Logits at every token.

        Args:
            tokens: `[b, t]`.
            mask: True = a real token, False = padding.
            positions: default 0, 1, 2, ...
            key: for mechanisms that draw random numbers.

        Raises:
            ValueError: a shape that does not fit, or more tokens than learned positions.
        """
        sizes: dict[str, int] = {}
        check_shape("tokens", tokens, "b t", sizes)
        x = self.embed(tokens)
        if self.places is not None:
            if positions is None and sizes["t"] > self.config.max_length:
                raise ValueError(
                    f"tokens: learned positions reach to {self.config.max_length}, "
                    f"got length {sizes['t']}"
                )
            x = x + self.places(jnp.arange(sizes["t"]) if positions is None else positions)
        for index, block in enumerate(self.blocks):
            own = None if key is None else jax.random.fold_in(key, index)
            x = block(x, mask=mask, positions=positions, key=own)
        return self._read_out(x)

    def init_state(self, batch_size: int, max_length: int) -> Any:
        """An empty decoding state: per layer a key-value cache or a recurrent state.

        Raises:
            ValueError: the model is an encoder, or a layer's mechanism has no step form.
        """
        if not self.config.causal:
            raise ValueError("init_state: an encoder does not decode; use causal=True")
        layers = [block.mixer.init_state(batch_size, max_length) for block in self.blocks]
        return jnp.zeros((), jnp.int32), layers

    def step(self, tokens: Int[Array, " b"], state: Any) -> tuple[Float[Array, "b vocab"], Any]:
        """Logits after one more token `[b]`, and the next state."""
        position, layers = state
        x = self.embed(tokens)
        if self.places is not None:
            x = x + self.places(position)
        after = []
        for block, layer in zip(self.blocks, layers, strict=True):
            x, layer = block.step(x, layer)
            after.append(layer)
        return self._read_out(x), (position + 1, after)


def generate(
    model: Transformer,
    prompt: Int[Array, "b t"],
    length: int,
    *,
    key: jax.Array | None = None,
    temperature: float = 1.0,
) -> Int[Array, "b length"]:
    """Continues a prompt token by token.

    Args:
        model: a decoder.
        prompt: `[b, t]`, t at least 1.
        length: tokens to add.
        key: draws from softmax(logits / temperature); None takes the likeliest token.
        temperature: see `key`.

    Returns:
        The new tokens `[b, length]`.

    Raises:
        ValueError: an encoder, an empty prompt, or more tokens than learned positions.

    Example:
        >>> model = Transformer(TransformerConfig(vocab_size=50, dim=16), rngs=nnx.Rngs(0))
        >>> generate(model, jnp.zeros((2, 3), int), 5).shape
        (2, 5)
    """
    batch, given = prompt.shape
    total = given + length
    if given < 1:
        raise ValueError("prompt: expected at least one token, got none")
    if model.places is not None and total > model.config.max_length:
        raise ValueError(
            f"length: learned positions reach to {model.config.max_length}, got {total} tokens"
        )
    definition, variables = nnx.split(model)

    def one(state, tokens):
        logits, state = nnx.merge(definition, variables).step(tokens, state)
        return state, logits

    def extend(carry, index):
        state, logits = carry
        if key is None:
            token = jnp.argmax(logits, -1)
        else:
            own = jax.random.fold_in(key, index)
            token = jax.random.categorical(own, logits / temperature)
        state, logits = one(state, token)
        return (state, logits), token

    state, logits = lax.scan(one, model.init_state(batch, total), prompt.T)
    _, tokens = lax.scan(extend, (state, logits[-1]), jnp.arange(length))
    return tokens.T
