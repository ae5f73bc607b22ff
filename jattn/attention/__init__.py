"""The softmax-like engine: score -> bias -> score_mod -> mask -> normalise -> aggregate."""

from jattn.attention import masks, normalizers, positions, scores
from jattn.attention.attend import Selection, attend, explain
from jattn.attention.blocks import Blocks
from jattn.attention.decode import decode
from jattn.attention.merge import merge
from jattn.attention.normalizers import Normalizer, given_lse
from jattn.attention.ring import ring_attend, stripe
from jattn.attention.statistics import attention_statistics
from jattn.attention.transposed import attend_columns

__all__ = [
    "Blocks",
    "Normalizer",
    "Selection",
    "attend",
    "attend_columns",
    "attention_statistics",
    "decode",
    "explain",
    "given_lse",
    "masks",
    "merge",
    "normalizers",
    "positions",
    "ring_attend",
    "scores",
    "stripe",
]
