"""Mixers made of mixers."""

from jattn.mechanisms.combinators.gated import gate, gated
from jattn.mechanisms.combinators.mixture import mixture
from jattn.mechanisms.combinators.routed import moh_gates, query_norm_gates, routed

__all__ = ["gate", "gated", "mixture", "moh_gates", "query_norm_gates", "routed"]
