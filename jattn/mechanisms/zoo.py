"""The register of mechanisms: `names()`, `info(name)`, `make(name, ...)`."""

import difflib
import inspect

from jattn.mechanisms.channel import gated_mlp, step_attention
from jattn.mechanisms.linear import (
    agent_attention,
    delta_rule,
    dydila,
    flow_attention,
    gated_delta_rule,
    gated_linear_attention,
    hedgehog,
    linear_attention,
    local_linear_attention,
    parallax,
    retention,
    softmax_rnn,
    softmax_variants,
    taylor_attention,
)
from jattn.mechanisms.memory import (
    consciousness_prior,
    memora,
    moneta,
    reaction_diffusion,
    titans_mac,
    titans_mag,
    titans_mal,
    titans_memory,
    yaad,
)
from jattn.mechanisms.mixer import Mechanism, Mixer
from jattn.mechanisms.softmax import (
    affine_attention,
    curved_attention,
    decoupled_attention,
    differential_attention,
    diffqkv_attention,
    gated_attention,
    grouped_differential_attention,
    hierarchical_attention,
    key_only_attention,
    minimal_attention,
    mixture_of_heads,
    position_invariant,
    probabilistic_attention,
    relative_attention,
    reversed_attention,
    reweighted_softplus_attention,
    sigmoid_attention,
    softmax_attention,
    softplus_attention,
    window_query_attention,
)

# A new mechanism is one file that ends in `MECHANISM = Mechanism(...)`, and one line here.
MEMBERS: tuple[Mechanism, ...] = (
    affine_attention.MECHANISM,
    agent_attention.MECHANISM,
    consciousness_prior.MECHANISM,
    curved_attention.MECHANISM,
    decoupled_attention.MECHANISM,
    delta_rule.MECHANISM,
    differential_attention.MECHANISM,
    diffqkv_attention.MECHANISM,
    dydila.MECHANISM,
    flow_attention.MECHANISM,
    gated_attention.MECHANISM,
    gated_delta_rule.MECHANISM,
    gated_linear_attention.MECHANISM,
    gated_mlp.MECHANISM,
    hedgehog.MECHANISM,
    key_only_attention.MECHANISM,
    linear_attention.MECHANISM,
    local_linear_attention.MECHANISM,
    grouped_differential_attention.MECHANISM,
    hierarchical_attention.MECHANISM,
    memora.MECHANISM,
    minimal_attention.MECHANISM,
    mixture_of_heads.MECHANISM,
    moneta.MECHANISM,
    parallax.MECHANISM,
    position_invariant.MECHANISM,
    probabilistic_attention.MECHANISM,
    reaction_diffusion.MECHANISM,
    relative_attention.MECHANISM,
    retention.MECHANISM,
    reversed_attention.MECHANISM,
    reweighted_softplus_attention.MECHANISM,
    sigmoid_attention.MECHANISM,
    softmax_attention.MECHANISM,
    softmax_rnn.MECHANISM,
    softmax_variants.MECHANISM,
    softplus_attention.MECHANISM,
    step_attention.MECHANISM,
    taylor_attention.MECHANISM,
    titans_mac.MECHANISM,
    titans_mag.MECHANISM,
    titans_mal.MECHANISM,
    titans_memory.MECHANISM,
    window_query_attention.MECHANISM,
    yaad.MECHANISM,
)

_BY_NAME = {mechanism.name: mechanism for mechanism in MEMBERS}


def names() -> tuple[str, ...]:
    """Names of all mechanisms, sorted by family and name."""
    return tuple(m.name for m in sorted(MEMBERS, key=lambda m: (m.family, m.name)))


def info(name: str) -> Mechanism:
    """The card of one mechanism.

    Raises:
        ValueError: no mechanism has that name; the message suggests near ones.
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, n=3) or sorted(_BY_NAME)
        raise ValueError(f"mechanism: no {name!r} in the zoo; did you mean {', '.join(near)}?")
    return _BY_NAME[name]


def options(name: str) -> tuple[str, ...]:
    """Names of a mechanism's own options, beyond dim, heads and causal."""
    parameters = inspect.signature(info(name).make).parameters
    return tuple(p for p in parameters if p not in ("dim", "heads", "causal"))


def make(name: str, *, dim: int, heads: int, causal: bool = False, **chosen) -> Mixer:
    """Makes the `(init, apply)` pair of a mechanism.

    Args:
        name: one of `names()`.
        dim: model dimension m of the tokens it mixes.
        heads: number of query heads.
        causal: whether token t may depend on tokens <= t only.
        **chosen: the mechanism's own options; see its maker's docstring.

    Returns:
        A `Mixer`.

    Raises:
        ValueError: an unknown name or option, or a size that does not fit.
    """
    mechanism = info(name)
    for option in chosen:
        if option not in options(name):
            known = ", ".join(options(name)) or "none"
            raise ValueError(f"{name}: unknown option {option!r}; it has {known}")
    if causal and not mechanism.causal:
        raise ValueError(f"causal: {name} has no causal form; pass causal=False")
    if not causal and not mechanism.bidirectional:
        raise ValueError(f"causal: {name} has only a causal form; pass causal=True")
    return mechanism.make(dim=dim, heads=heads, causal=causal, **chosen)
