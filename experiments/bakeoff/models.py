"""One decoder for all mechanisms, with the same number of parameters, as pure functions."""

import functools
from collections.abc import Sequence

import jattn
from experiments.functional import Model, decoder
from jattn.nn import TransformerConfig

REFERENCE = "softmax_attention"


def matched_model(
    mechanisms: Sequence[tuple[str, dict]], vocabulary: int, length: int, config
) -> Model:
    """A decoder with these mechanisms and as many parameters as one with softmax attention.

    Layers take the mechanisms in turn. What they have more or less of is made up for in the hidden
    units of the MLPs.

    Raises:
        ValueError: a mechanism cannot be made with these sizes, or has too many parameters.
    """
    make = functools.partial(_model, vocabulary=vocabulary, length=length, config=config)
    wanted = make([(REFERENCE, {})], mlp_ratio=config.mlp_ratio).parameters
    own = make(mechanisms, mlp_ratio=config.mlp_ratio).parameters
    per_unit = config.layers * (2 * config.dim + 1)
    hidden = round(config.mlp_ratio * config.dim + (wanted - own) / per_unit)
    if hidden < 1:
        names = " + ".join(name for name, _ in mechanisms)
        raise ValueError(
            f"{names}: has {own - wanted:+,d} parameters, more than the MLPs could give up"
        )
    return make(mechanisms, mlp_ratio=hidden / config.dim)


def _model(
    mechanisms: Sequence[tuple[str, dict]],
    *,
    vocabulary: int,
    length: int,
    config,
    mlp_ratio: float,
) -> Model:
    can_rotate = any("rotary" in jattn.zoo.options(name) for name, _ in mechanisms)
    settings = TransformerConfig(
        vocab_size=vocabulary,
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=[mechanisms[i % len(mechanisms)] for i in range(config.layers)],
        mlp_ratio=mlp_ratio,
        positions="rotary" if can_rotate and config.positions == "rotary" else "none",
        max_length=length,
    )
    return decoder(settings)
