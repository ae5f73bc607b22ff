"""Mixers made of mixers."""

from jattn.mechanisms.combinators.gated import gate, gated
from jattn.mechanisms.combinators.mixture import mix, mixture
from jattn.mechanisms.combinators.routed import moh_gates, query_norm_gates, routed
from jattn.mechanisms.combinators.short_convolution import short_convolution

__all__ = [
    "gate",
    "gated",
    "mix",
    "mixture",
    "moh_gates",
    "query_norm_gates",
    "routed",
    "short_convolution",
]
