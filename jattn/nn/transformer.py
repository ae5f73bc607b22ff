"""A transformer whose every layer may mix tokens by another mechanism."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice, check_shape
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import short_convolution
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer

POSITIONS = ("none", "learned", "rotary")
DTYPES = ("float32", "bfloat16")
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
        short_convolution: tokens that filters on queries, keys and values see (causal; see
            `jattn.mechanisms.combinators.short_convolution`); 0 leaves them out.
        positions: `"none"`, `"learned"` (added to embeddings), or `"rotary"` (in those mechanisms
            that have the option `rotary`; at least one must).
        max_length: tokens that learned positions reach to; unused by the others.
        tie_embeddings: read out with the transposed token embedding.
        dtype: of activations, `"float32"` or `"bfloat16"`; parameters and logits are float32.

    Raises:
        ValueError: a value that does not fit, here already and not when the model is made.

    Example:
        >>> TransformerConfig(vocab_size=50, dim=64, heads=6)
        Traceback (most recent call last):
        ...
        ValueError: heads: expected a divisor of dim=64, got 6
    """

    vocab_size: int
    dim: int = 128
    heads: int = 4
    layers: int = 2
    mechanisms: Layer | Sequence[Layer] = "softmax_attention"
    causal: bool = True
    mlp_ratio: float = 4.0
    short_convolution: int = 0
    positions: str = "learned"
    max_length: int = 1024
    tie_embeddings: bool = True
    dtype: str = "float32"

    def __post_init__(self):
        for field in ("vocab_size", "dim", "heads", "layers", "max_length"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: expected at least 1, got {getattr(self, field)}")
        if self.mlp_ratio < 0:
            raise ValueError(f"mlp_ratio: expected at least 0, got {self.mlp_ratio}")
        if self.short_convolution < 0 or (self.short_convolution and not self.causal):
            raise ValueError(
                "short_convolution: expected a width of at least 1 in a causal model, or 0, got "
                f"{self.short_convolution}"
            )
        check_choice("positions", self.positions, POSITIONS)
        check_choice("dtype", self.dtype, DTYPES)
        per_layer = self.per_layer()
        for name, options in per_layer:
            zoo.make(name, **options)
        if self.positions == "rotary" and not any("rotary" in options for _, options in per_layer):
            raise ValueError(
                "positions: no layer's mechanism can rotate; use positions='learned' or 'none'"
            )

    def per_layer(self) -> list[tuple[str, dict[str, Any]]]:
        """Name of every layer's mechanism, and all options it is made with."""
        layers = []
        for name, own in mechanisms_by_layer(self.mechanisms, self.layers):
            options: dict[str, Any] = dict(dim=self.dim, heads=self.heads, causal=self.causal)
            if self.positions == "rotary" and "rotary" in zoo.options(name):
                options["rotary"] = True
            layers.append((name, {**options, **own}))
        return layers


def mechanisms_by_layer(
    mechanisms: Layer | Sequence[Layer], layers: int
) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and own options of every layer's mechanism, from one entry for all or one for each.

    Raises:
        ValueError: an entry is neither a name nor `(name, options)`, or there are too few or many.

    Example:
        >>> mechanisms_by_layer(("softmax_attention", ("retention", {})), 2)
        [('softmax_attention', {}), ('retention', {})]
    """
    one = _name_and_options(mechanisms)
    if one:
        return [one] * layers
    found = []
    for entry in mechanisms:
        name_and_options = _name_and_options(entry)
        if name_and_options is None:
            raise ValueError(f"mechanisms: expected a name or (name, options), got {entry!r}")
        found.append(name_and_options)
    if len(found) != layers:
        raise ValueError(
            f"mechanisms: expected one, or one for each of {layers} layers, got {len(found)}"
        )
    return found


def _name_and_options(entry: Any) -> tuple[str, Mapping[str, Any]] | None:
    """One layer's entry in one form, or None if it is not one. A list, as in JSON, is a tuple."""
    match entry:
        case str():
            return entry, {}
        case [str() as name, Mapping() as options]:
            return name, options
    return None


class DecodingState(NamedTuple):
    """What a decoder remembers between tokens.

    Attributes:
        position: how many tokens it has seen.
        layers: per layer a key-value cache or a recurrent state.
    """

    position: Int[Array, ""]
    layers: list[Any]


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
        dim, dtype = config.dim, jnp.dtype(config.dtype)
        self.causal, self.max_length = config.causal, config.max_length
        self.embed = nnx.Embed(config.vocab_size, dim, dtype=dtype, rngs=rngs)
        learned, untied = config.positions == "learned", not config.tie_embeddings
        self.places = nnx.Embed(config.max_length, dim, dtype=dtype, rngs=rngs) if learned else None
        blocks = []
        for name, options in config.per_layer():
            pair = zoo.make(name, **options)
            if config.short_convolution:
                pair = short_convolution(pair, width=config.short_convolution)
            mixer = Mixer(pair, rngs=rngs)
            blocks.append(Block(mixer, dim, config.mlp_ratio, dtype=dtype, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.norm = nnx.RMSNorm(dim, dtype=dtype, rngs=rngs)
        self.head = (
            nnx.Linear(dim, config.vocab_size, use_bias=False, dtype=dtype, rngs=rngs)
            if untied
            else None
        )

    def _read_out(self, x: Float[Array, "*batch m"]) -> Float[Array, "*batch vocab"]:
        x = self.norm(x)
        logits = self.embed.attend(x) if self.head is None else self.head(x)
        return logits.astype(jnp.float32)

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Any = None,
        positions: Int[Array, "b t"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b t vocab"]:
        """Logits at every token.

        Args:
            tokens: `[b, t]`.
            mask: bool `[b, t]`, True = a real token, False = padding; or another mask that every
                layer's mechanism takes.
            positions: default 0, 1, 2, ...
            key: for mechanisms that draw random numbers.

        Raises:
            ValueError: a shape that does not fit, or more tokens than learned positions.
        """
        sizes: dict[str, int] = {}
        check_shape("tokens", tokens, "b t", sizes)
        x = self.embed(tokens)
        if self.places is not None:
            if positions is None:
                self._check_length("tokens", sizes["t"])
            x = x + self.places(jnp.arange(sizes["t"]) if positions is None else positions)
        for index, block in enumerate(self.blocks):
            own = None if key is None else jax.random.fold_in(key, index)
            x = block(x, mask=mask, positions=positions, key=own)
        return self._read_out(x)

    def init_state(self, batch_size: int, max_length: int) -> DecodingState:
        """An empty decoding state, for up to `max_length` tokens.

        Raises:
            ValueError: the model is an encoder, a layer's mechanism has no step form, or learned
                positions do not reach that far.
        """
        if not self.causal:
            raise ValueError("causal: an encoder does not decode; make it with causal=True")
        self._check_length("max_length", max_length)
        layers = [block.mixer.init_state(batch_size, max_length) for block in self.blocks]
        return DecodingState(jnp.zeros((), jnp.int32), layers)

    def _check_length(self, name: str, length: int) -> None:
        if self.places is not None and length > self.max_length:
            raise ValueError(
                f"{name}: learned positions reach to {self.max_length} tokens, got {length}"
            )

    def step(
        self, tokens: Int[Array, " b"], state: DecodingState
    ) -> tuple[Float[Array, "b vocab"], DecodingState]:
        """Logits after one more token `[b]`, and the next state.

        Beyond the state's `max_length` there is no room, and a model with a cache gives NaN.
        """
        x = self.embed(tokens)
        if self.places is not None:
            x = x + self.places(state.position)
        layers = []
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x, layer = block.step(x, layer)
            layers.append(layer)
        return self._read_out(x), DecodingState(state.position + 1, layers)
