"""The register of mechanisms: `names()`, `info(name)`, `make(name, ...)`, `register(mechanism)`."""

import difflib
import functools
import importlib.metadata
import warnings
from typing import Any

from jattn.checks import check_choice
from jattn.mechanisms.channel import (
    channel_self_attention,
    codebook_bottleneck,
    collaborative_attention,
    context_encoding,
    convolutional_block_attention,
    efficient_channel_attention,
    efficient_local_attention,
    frequency_channel_attention,
    gated_channel_transform,
    gated_mlp,
    gather_excite,
    multi_axis_gmlp,
    ninformer,
    second_order_pooling,
    semantic_gate,
    soft_mask_attention,
    squeeze_excitation,
    step_attention,
    style_recalibration,
)
from jattn.mechanisms.linear import (
    agent_attention,
    comba,
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
    rwkv7,
    softmax_rnn,
    softmax_variants,
    taylor_attention,
)
from jattn.mechanisms.mechanism import (
    KINDS,
    Kind,
    Mechanism,
    build,
    check_mechanism_fields,
    options_of,
)
from jattn.mechanisms.memory import (
    consciousness_prior,
    miras_mixers,
    reaction_diffusion,
    titans_mac,
    titans_memory,
    titans_window,
)
from jattn.mechanisms.pointer import (
    object_pointer,
    pointer_network,
)
from jattn.mechanisms.pooling import (
    acmil,
    aim_pooling,
    brain_encoder,
    cbam_pooling,
    class_attention,
    clip_pooling,
    coca_pooling,
    cross_attention_pooling,
    dolg_pooling,
    efficient_probing,
    in_context_weights,
    multiple_instance_pooling,
    set_pooling,
    simpool,
)
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
    position_attention,
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
from jattn.mechanisms.sparse import neighborhood_attention, routing_attention

# A new mechanism is one file that ends in `MECHANISM = Mechanism(...)`, and one line here.
MECHANISMS: tuple[Mechanism, ...] = (
    acmil.MECHANISM,
    affine_attention.MECHANISM,
    agent_attention.MECHANISM,
    brain_encoder.MECHANISM,
    channel_self_attention.MECHANISM,
    codebook_bottleneck.MECHANISM,
    comba.MECHANISM,
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
    in_context_weights.MECHANISM,
    key_only_attention.MECHANISM,
    linear_attention.MECHANISM,
    local_linear_attention.MECHANISM,
    grouped_differential_attention.MECHANISM,
    hierarchical_attention.MECHANISM,
    miras_mixers.MEMORA,
    miras_mixers.MIRAS,
    minimal_attention.MECHANISM,
    mixture_of_heads.MECHANISM,
    miras_mixers.MONETA,
    multi_axis_gmlp.MECHANISM,
    ninformer.MECHANISM,
    object_pointer.MECHANISM,
    parallax.MECHANISM,
    position_attention.MECHANISM,
    position_invariant.MECHANISM,
    pointer_network.MECHANISM,
    probabilistic_attention.MECHANISM,
    reaction_diffusion.MECHANISM,
    relative_attention.MECHANISM,
    retention.MECHANISM,
    rwkv7.MECHANISM,
    reversed_attention.MECHANISM,
    reweighted_softplus_attention.MECHANISM,
    set_pooling.MECHANISM,
    aim_pooling.MECHANISM,
    cbam_pooling.MECHANISM,
    class_attention.MECHANISM,
    clip_pooling.MECHANISM,
    coca_pooling.MECHANISM,
    cross_attention_pooling.MECHANISM,
    dolg_pooling.MECHANISM,
    efficient_probing.MECHANISM,
    multiple_instance_pooling.MECHANISM,
    simpool.MECHANISM,
    semantic_gate.MECHANISM,
    sigmoid_attention.MECHANISM,
    soft_mask_attention.MECHANISM,
    softmax_attention.MECHANISM,
    softmax_rnn.MECHANISM,
    softmax_variants.MECHANISM,
    softplus_attention.MECHANISM,
    squeeze_excitation.MECHANISM,
    collaborative_attention.MECHANISM,
    context_encoding.MECHANISM,
    convolutional_block_attention.MECHANISM,
    efficient_channel_attention.MECHANISM,
    frequency_channel_attention.MECHANISM,
    gated_channel_transform.MECHANISM,
    gather_excite.MECHANISM,
    second_order_pooling.MECHANISM,
    style_recalibration.MECHANISM,
    efficient_local_attention.MECHANISM,
    neighborhood_attention.MECHANISM,
    routing_attention.MECHANISM,
    step_attention.MECHANISM,
    taylor_attention.MECHANISM,
    titans_mac.MECHANISM,
    titans_window.MAG,
    titans_window.MAL,
    titans_memory.MECHANISM,
    window_query_attention.MECHANISM,
    miras_mixers.YAAD,
)

# Other names that the field has for them. `names()` does not list these.
ALIASES = {
    "abmil": "multiple_instance_pooling",
    "abmilp": "multiple_instance_pooling",
    "agent": "agent_attention",
    "aim": "aim_pooling",
    "attention": "softmax_attention",
    "cat": "curved_attention",
    "braincorl": "in_context_weights",
    "cait": "class_attention",
    "cbam": "convolutional_block_attention",
    "coca": "coca_pooling",
    "deltanet": "delta_rule",
    "diff_transformer": "differential_attention",
    "differential_transformer": "differential_attention",
    "dolg": "dolg_pooling",
    "eca": "efficient_channel_attention",
    "efficient_probe": "efficient_probing",
    "encnet": "context_encoding",
    "fca": "frequency_channel_attention",
    "fcanet": "frequency_channel_attention",
    "flowformer": "flow_attention",
    "fluidworld": "reaction_diffusion",
    "gated_deltanet": "gated_delta_rule",
    "gct": "gated_channel_transform",
    "ge": "gather_excite",
    "gla": "gated_linear_attention",
    "gqa": "softmax_attention",
    "gsop": "second_order_pooling",
    "oat": "object_pointer",
    "linear": "linear_attention",
    "linear_transformer": "linear_attention",
    "maxim": "multi_axis_gmlp",
    "mha": "softmax_attention",
    "moh": "mixture_of_heads",
    "mqa": "softmax_attention",
    "multi_head_attention": "softmax_attention",
    "music_transformer": "relative_attention",
    "pine": "position_invariant_attention",
    "pma": "set_pooling",
    "retnet": "retention",
    "se": "squeeze_excitation",
    "ela": "efficient_local_attention",
    "na": "neighborhood_attention",
    "self_attention": "softmax_attention",
    "sigmoid": "sigmoid_attention",
    "softmax": "softmax_attention",
    "srm": "style_recalibration",
    "stepnet": "step_attention",
    "swiglu": "gated_mlp",
    "titans": "titans_memory",
    "zonkey": "probabilistic_attention",
}

# Other packages name theirs in this group: each entry is a `Mechanism`, or a list of them.
ENTRY_POINTS = "jattn.mechanisms"

_REGISTERED: dict[str, Mechanism] = {}


def register(mechanism: Mechanism) -> None:
    """Adds a mechanism of another package to the zoo, for this process.

    A package whose mechanisms should be there wherever it is installed names them in its
    pyproject.toml, each a `Mechanism` or a list of them; they are loaded when first asked for:

        [project.entry-points."jattn.mechanisms"]
        anything = "package.module:MECHANISM"

    Args:
        mechanism: its entry; `jattn.testing.check_mechanism` tells whether it keeps to it.

    Raises:
        ValueError: a field that is not what it should be, or a name that is taken.

    Example:
        >>> register(info("retention")._replace(title="Another"))
        Traceback (most recent call last):
        ...
        ValueError: name: 'retention' is in the zoo already: ...
    """
    check_mechanism_fields(mechanism)
    name = mechanism.name
    taken = _REGISTERED.get(ALIASES.get(name, name))
    if taken is mechanism:  # by its module, and by the entry point that loads the module
        return
    if taken is not None:
        raise ValueError(f"name: {name!r} is in the zoo already: {taken.title}")
    _REGISTERED[name] = mechanism


for _mechanism in MECHANISMS:
    register(_mechanism)


@functools.cache
def _load_entry_points() -> tuple[str, ...]:
    """Registers what other packages offer, once; says and returns what could not be loaded."""
    failed = []
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found = entry.load()
            for mechanism in found if isinstance(found, list) else [found]:
                register(mechanism)
        except Exception as error:  # whatever a package of others does, the zoo goes on
            said = " ".join(str(error).split())
            failed.append(f"{entry.name} = {entry.value} ({type(error).__name__}: {said})")
            warnings.warn(f"mechanism: could not load {failed[-1]}", stacklevel=3)
    return tuple(failed)


def names(*, kind: Kind | None = None, family: str | None = None) -> tuple[str, ...]:
    """Lists the names of mechanisms, sorted by family and name.

    Args:
        kind: `"mixer"`, `"gate"`, `"pool"` or `"pointer"`; default all.
        family: a family's name, as `"linear"`; default all.

    Raises:
        ValueError: there is no such kind or family.

    Example:
        >>> names(kind="mixer", family="channel")[:3]
        ('channel_self_attention', 'codebook_bottleneck', 'gated_mlp')
        >>> names(kind="pointer")
        ('object_pointer', 'pointer_network')
    """
    _load_entry_points()
    found = sorted(_REGISTERED.values(), key=lambda m: (m.family, m.name))
    if kind is not None:
        check_choice("kind", kind, KINDS)
    if family is not None:
        check_choice("family", family, sorted({m.family for m in found}))
    return tuple(m.name for m in found if kind in (None, m.kind) and family in (None, m.family))


def info(name: str) -> Mechanism:
    """Finds the entry of one mechanism.

    Args:
        name: one of `names()` or of `ALIASES`; capitals do not matter, and a space or a hyphen is
            an underscore.

    Raises:
        ValueError: no mechanism has that name; the message suggests near ones.

    Example:
        >>> info("RetNet").name, info("softmax").name
        ('retention', 'softmax_attention')
    """
    if not isinstance(name, str):
        raise ValueError(f"mechanism: expected a name, got a {type(name).__name__}")
    plain = name.lower().replace("-", "_").replace(" ", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in _REGISTERED:
        failed = _load_entry_points()
    if plain not in _REGISTERED:
        known = [*_REGISTERED, *ALIASES]
        near = difflib.get_close_matches(plain, known, n=3) or sorted(_REGISTERED)
        unloaded = f"; not loaded: {'; '.join(failed)}" if failed else ""
        raise ValueError(
            f"mechanism: no {name!r} in the zoo; did you mean {', '.join(near)}?{unloaded}"
        )
    return _REGISTERED[plain]


def options(name: str) -> tuple[str, ...]:
    """Lists a mechanism's own options, beyond dim, heads and causal.

    Example:
        >>> options("step_attention")
        ('hidden', 'reduction', 'steps')
    """
    return options_of(info(name))


def make(
    name: str, *, dim: int, heads: int | None = None, causal: bool = False, **chosen: Any
) -> Any:
    """Makes the `(init, apply)` pair of a mechanism.

    Args:
        name: one of `names()`, or another name for it, as `info` takes it.
        dim: model dimension m of the tokens it works on.
        heads: number of query heads, which every mixer asks for.
        causal: whether token t may depend on tokens <= t only; for mixers.
        **chosen: the mechanism's own options; see its maker's docstring.

    Returns:
        A `Mixer`; of a mechanism of another kind a `Gate`, `Pool` or `Pointer`.

    Raises:
        ValueError: an unknown name or option, or a size that does not fit.

    Example:
        >>> make("retention", dim=8, heads=2, causal=True).step is None
        False
    """
    return build(info(name), dim=dim, heads=heads, causal=causal, **chosen)
