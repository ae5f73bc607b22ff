"""A transformer whose every layer may mix tokens by another mechanism."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.attention.positions import sinusoids
from jattn.checks import (
    check_array,
    check_choice,
    check_count,
    check_flag,
    check_indices,
    check_number,
    check_shape,
)
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import short_convolution
from jattn.mechanisms.mixer import Parts
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer, make_pair
from jattn.sharding import sharding_of_rows

POSITIONS = ("none", "learned", "sinusoidal", "rotary")
DTYPES = ("float32", "bfloat16")
AUXILIARY_WEIGHT = 0.01  # of auxiliary losses in the task's, as in arXiv 2410.11842
# Options of softmax attention that leave it a softmax of scores of queries and keys.
SOFTMAX_SIZES = ("dim", "heads", "causal", "kv_heads", "rotary", "window")
# A layer: a name of the zoo, or a name with the mechanism's options.
Layer = str | tuple[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Configuration of a `Transformer`.

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
        positions: `"none"`, `"learned"` or `"sinusoidal"` (added to embeddings), or `"rotary"` (in
            those mechanisms that have the option `rotary`; at least one must).
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
            check_count(field, getattr(self, field))
        check_number("mlp_ratio", self.mlp_ratio, least=0)
        check_flag("causal", self.causal)
        check_flag("tie_embeddings", self.tie_embeddings)
        check_count("short_convolution", self.short_convolution, least=0)
        if self.short_convolution and not self.causal:
            raise ValueError(
                "short_convolution: expected a width of at least 1 in a causal model, or 0, got "
                f"{self.short_convolution}"
            )
        check_choice("positions", self.positions, POSITIONS)
        check_choice("dtype", self.dtype, DTYPES)
        if self.positions == "sinusoidal" and self.dim % 2:
            raise ValueError(f"dim: sinusoidal positions need an even one, got {self.dim}")
        per_layer = self.per_layer()
        for name, options in per_layer:
            make_pair(name, **options)
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

    def plain_softmax(self) -> tuple[bool, ...]:
        """Whether each layer's attention is a softmax of scores and nothing more."""
        more = lambda options: any(v for n, v in options.items() if n not in SOFTMAX_SIZES)
        short = self.short_convolution > 0
        return tuple(
            name == "softmax_attention" and not more(options) and not short
            for name, options in self.per_layer()
        )


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


def mean_over_layers(
    losses: Iterable[Mapping[str, Float[Array, ""]]],
) -> dict[str, Float[Array, ""]]:
    """Auxiliary losses of layers, each averaged over the layers that have it.

    Example:
        >>> found = mean_over_layers([{"balance": jnp.array(2.0)}, {}, {"balance": jnp.array(4.0)}])
        >>> float(found["balance"])
        3.0
    """
    of: dict[str, list[Any]] = {}
    for layer in losses:
        for name, value in layer.items():
            of.setdefault(name, []).append(value)
    return {name: jnp.mean(jnp.stack(values)) for name, values in of.items()}


class DecodingState(NamedTuple):
    """State of a decoder between tokens.

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
        self.plain_softmax = config.plain_softmax()
        self.sinusoidal = config.positions == "sinusoidal"
        self.embed = nnx.Embed(config.vocab_size, dim, dtype=dtype, rngs=rngs)
        learned, untied = config.positions == "learned", not config.tie_embeddings
        self.places = nnx.Embed(config.max_length, dim, dtype=dtype, rngs=rngs) if learned else None
        blocks = []
        for name, options in config.per_layer():
            pair = make_pair(name, **options)
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

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.embed.num_embeddings

    def _look_up(self, name: str, table: nnx.Embed, index: Int[Array, "*batch"]) -> Array:
        """Rows of a table; NaN where there is none and, under jit, that cannot be refused."""
        check_array(name, index, "integer")
        check_indices(name, index, table.num_embeddings)
        inside = (index >= 0) & (index < table.num_embeddings)
        rows = table(jnp.where(inside, index, 0), out_sharding=sharding_of_rows(index))
        return jnp.where(inside[..., None], rows, jnp.nan)

    def _embedded(
        self, tokens: Int[Array, "*batch"], positions: Int[Array, "..."]
    ) -> Float[Array, "*batch m"]:
        x = self._look_up("tokens", self.embed, tokens)
        if self.sinusoidal:
            # Embeddings are of length 1; where the paper adds sinusoids they are of sqrt(m).
            waves = sinusoids(positions, x.shape[-1]) * x.shape[-1] ** -0.5
            return x + waves.astype(x.dtype)
        if self.places is None:
            return x
        return x + self._look_up("positions", self.places, positions)

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
        training: bool = False,
        edits: Mapping[int, Callable[[Parts], Parts]] | None = None,
    ) -> Any:
        """Logits at every token, `[b, t, vocab]`.

        Args:
            tokens: `[b, t]`, from 0 to the size of the vocabulary less one. Others are a
                ValueError; under `jit`, where values are not known, their embedding is NaN.
            mask: bool `[b, t]`, True = a real token, False = padding; or another mask that every
                layer's mechanism takes.
            positions: default 0, 1, 2, ...
            key: for mechanisms that draw random numbers.
            training: return `(logits, losses)`, the auxiliary losses of the layers' mechanisms by
                name, each the mean over the layers that have it, to be added to the task's loss
                times `AUXILIARY_WEIGHT`; and move their statistics in place (see `Mixer`).
            edits: for each layer that is to do something else this once, counted from 0, the change
                of its mixer's parts; see `jattn.mechanisms.mixer.Parts`.

        Raises:
            ValueError: a shape that does not fit, tokens that are not in the vocabulary, or more
                of them than learned positions.
        """
        sizes: dict[str, int] = {}
        check_shape("tokens", tokens, "b t", sizes)
        if positions is None:
            self._check_length("tokens", sizes["t"])
        x = self._embedded(tokens, jnp.arange(sizes["t"]) if positions is None else positions)
        found = []
        for index, block in enumerate(self.blocks):
            own = None if key is None else jax.random.fold_in(key, index)
            options = dict(mask=mask, positions=positions, key=own, training=training)
            x = block(x, **options, edit=(edits or {}).get(index))
            if training:
                x, losses = x
                found.append(losses)
        logits = self._read_out(x)
        return (logits, mean_over_layers(found)) if training else logits

    def init_state(self, batch_size: int, max_length: int) -> DecodingState:
        """An empty decoding state, for up to `max_length` tokens.

        Raises:
            ValueError: the model is an encoder, a layer's mechanism has no step form, or learned
                positions do not reach that far.
        """
        if not self.causal:
            raise ValueError("causal: an encoder does not decode; make it with causal=True")
        check_count("batch_size", batch_size, least=0)
        check_count("max_length", max_length)
        self._check_length("max_length", max_length)
        dtype = self.embed.dtype
        layers = [b.mixer.init_state(batch_size, max_length, dtype=dtype) for b in self.blocks]
        return DecodingState(jnp.zeros((), jnp.int32), layers)

    def _check_length(self, name: str, length: int) -> None:
        if self.places is not None and length > self.max_length:
            raise ValueError(
                f"{name}: learned positions reach to {self.max_length} tokens, got {length}"
            )

    def prefill(
        self,
        tokens: Int[Array, "b t"],
        state: DecodingState,
        length: Int[Array, ""] | int | None = None,
    ) -> tuple[Float[Array, "b vocab"], DecodingState]:
        """Logits after the first tokens of all, read at once, and the state behind them.

        Args:
            tokens: `[b, t]`, as for the model.
            state: an empty one, as `init_state` gives it.
            length: how many of the t tokens are real, in all rows; the others are padding behind
                them. Default all.
        """
        x = self._embedded(tokens, jnp.arange(tokens.shape[1]))
        length = tokens.shape[1] if length is None else length
        layers = []
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x, layer = block.prefill(x, layer, length)
            layers.append(layer)
        last = lax.dynamic_index_in_dim(x, length - 1, 1, keepdims=False)
        return self._read_out(last), DecodingState(jnp.asarray(length, jnp.int32), layers)

    def step(
        self, tokens: Int[Array, " b"], state: DecodingState
    ) -> tuple[Float[Array, "b vocab"], DecodingState]:
        """Logits after one more token `[b]`, and the next state.

        Beyond the state's `max_length` there is no room, and a model with a cache gives NaN.
        """
        x = self._embedded(tokens, state.position)
        layers = []
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x, layer = block.step(x, layer)
            layers.append(layer)
        return self._read_out(x), DecodingState(state.position + 1, layers)
