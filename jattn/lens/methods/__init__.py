"""Published ways of reading and changing attention, each a small pure function of the lens.

A file is a paper or a tight group of them, and ends in its `METHOD`; a group of two has one more.
"""

from jattn.checks import check_choice
from jattn.lens.methods import (
    atomic_steering,
    attention_calibration,
    attention_influence,
    attention_magnets,
    attention_perturbation,
    attention_shifting,
    circuits,
    content_filter,
    contrastive_attention,
    copy_suppression,
    forgetting,
    gaze_heads,
    gaze_shift,
    guidance,
    head_divergence,
    introspection,
    lofit,
    neurofeedback,
    pattern_rates,
    rhythm,
    saliency,
    secondary_sinks,
    sink_report,
    soft_injection,
    token_emphasis,
    visual_redistribution,
    zero_tuning,
)
from jattn.lens.methods.method import Kind, Method

_FILES = (
    atomic_steering,
    attention_calibration,
    attention_influence,
    attention_magnets,
    attention_perturbation,
    attention_shifting,
    circuits,
    content_filter,
    contrastive_attention,
    copy_suppression,
    forgetting,
    gaze_heads,
    gaze_shift,
    guidance,
    head_divergence,
    introspection,
    lofit,
    neurofeedback,
    pattern_rates,
    rhythm,
    saliency,
    secondary_sinks,
    sink_report,
    soft_injection,
    token_emphasis,
    visual_redistribution,
    zero_tuning,
)
_ALL = (*(file.METHOD for file in _FILES), circuits.EMERGENT, attention_perturbation.VIRTUAL)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def names(*, kind: Kind | None = None) -> tuple[str, ...]:
    """Names of all methods, or of those of a kind.

    Example:
        >>> "zero_tuning" in names(kind="edit")
        True
    """
    return tuple(sorted(n for n, method in METHODS.items() if kind in (None, method.kind)))


def info(name: str) -> Method:
    """What is known of a method.

    Raises:
        ValueError: there is none of this name.

    Example:
        >>> info("zero_tuning").arxiv
        '2505.11739'
    """
    check_choice("name", name, names())
    return METHODS[name]
