"""Flax NNX modules: any mechanism as a layer, and transformers made of them."""

from jattn.nn.blocks import MLP, Block
from jattn.nn.generate import generate
from jattn.nn.mixer import Mixer
from jattn.nn.transformer import DecodingState, Transformer, TransformerConfig
from jattn.nn.vision_transformer import VisionTransformer, VisionTransformerConfig

__all__ = [
    "MLP",
    "Block",
    "DecodingState",
    "Mixer",
    "Transformer",
    "TransformerConfig",
    "VisionTransformer",
    "VisionTransformerConfig",
    "generate",
]
