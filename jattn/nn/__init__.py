"""Flax NNX modules: any mechanism as a layer, and transformers made of them."""

from jattn.nn.blocks import MLP, Block
from jattn.nn.mixer import Mixer
from jattn.nn.transformer import Transformer, TransformerConfig, generate

__all__ = ["MLP", "Block", "Mixer", "Transformer", "TransformerConfig", "generate"]
