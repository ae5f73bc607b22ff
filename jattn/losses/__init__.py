"""Losses as pure functions of arrays, for models of any library."""

from jattn.losses import policy_gradient, preference
from jattn.losses.sequences import SequenceLogProbability, sequence_log_probability

__all__ = ["SequenceLogProbability", "policy_gradient", "preference", "sequence_log_probability"]
