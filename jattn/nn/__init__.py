"""Flax NNX modules: any mechanism as a layer, and transformers made of them."""

from jattn.nn.attention_fn import attention_fn
from jattn.nn.base_net import BaseNet, BaseNetConfig
from jattn.nn.blocks import MLP, Block
from jattn.nn.convolution import Convolution
from jattn.nn.diffusion_transformer import DiffusionTransformer, DiffusionTransformerConfig
from jattn.nn.generate import generate
from jattn.nn.kinds import Gate, Pointer, Pool
from jattn.nn.llama import Llama, LlamaConfig
from jattn.nn.lora import Adapter, lora_init, lora_merge
from jattn.nn.mixer import Mixer, statistics
from jattn.nn.pointer_network import PointerNetwork, PointerNetworkConfig, pointing_loss
from jattn.nn.residual_network import ResidualNetwork, ResidualNetworkConfig
from jattn.nn.torch_weights import from_torch_attention
from jattn.nn.transformer import (
    AUXILIARY_WEIGHT,
    DecodingState,
    Transformer,
    TransformerConfig,
)
from jattn.nn.u_net import UNet, UNetConfig, UNetOutput
from jattn.nn.vision_transformer import VisionTransformer, VisionTransformerConfig

__all__ = [
    "AUXILIARY_WEIGHT",
    "MLP",
    "Adapter",
    "BaseNet",
    "BaseNetConfig",
    "Block",
    "Convolution",
    "DecodingState",
    "DiffusionTransformer",
    "DiffusionTransformerConfig",
    "Gate",
    "Llama",
    "LlamaConfig",
    "Mixer",
    "Pointer",
    "PointerNetwork",
    "PointerNetworkConfig",
    "Pool",
    "ResidualNetwork",
    "ResidualNetworkConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "UNetOutput",
    "VisionTransformer",
    "VisionTransformerConfig",
    "attention_fn",
    "from_torch_attention",
    "generate",
    "lora_init",
    "lora_merge",
    "pointing_loss",
    "statistics",
]
