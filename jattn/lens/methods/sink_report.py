"""A report on sinks in the three columns of a survey: use, interpretation, mitigation (2026).

Use: which share of heads has a sink, and how much weight a window with a few first tokens keeps.
Interpretation: massive channels, and how keys and values of the first token compare with others.
Mitigation: the same numbers of models that differ in their attention, side by side.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.lens.methods.method import Method, example_maps
from jattn.lens.readouts import massiveness, sink_rate
from jattn.lens.sinks import importance


def sink_report(
    probs: Float[Array, "L b h t t"],
    resid: Float[Array, "L b t m"],
    key: Float[Array, "L b t g d"],
    value: Float[Array, "L b t g e"],
    *,
    threshold: float = 0.3,
    first: int = 4,
    window: int = 32,
) -> dict[str, Float[Array, "..."]]:
    """Numbers by layer, of records of one model.

    Args:
        probs, resid, key, value: records of `probs`, `resid_pre`, `k` and `v`.
        threshold: of alpha, for `sink_rate`.
        first: how many first tokens a streaming cache keeps,
        window: and how many of the newest.

    Returns:
        `alpha` of the first token `[L]`; `sink_rate`, of all heads; `kept [L]`, the weight in that
        cache; `massiveness [L]` of the first token; `key_norm` and `value_norm [L]`, its norms over
        the median of the others'.
    """
    length = probs.shape[-1]
    back = jnp.arange(length)[:, None] - jnp.arange(length)
    cached = (jnp.arange(length) < first) | (back < window)
    norm = lambda x: jnp.linalg.norm(x, axis=-1).mean((1, 3))  # [L, t]
    over_others = lambda n: n[:, 0] / jnp.median(n[:, 1:], axis=1)
    return {
        "alpha": importance(probs)[..., 0].mean((1, 2)),
        "sink_rate": sink_rate(probs, threshold),
        "kept": jnp.where(cached, probs, 0).sum(-1).mean((1, 2, 3)),
        "massiveness": massiveness(resid)[:, :, 0].mean(1),
        "key_norm": over_others(norm(key)),
        "value_norm": over_others(norm(value)),
    }


def _example(key):
    a, b, c, d = jax.random.split(key, 4)
    return dict(
        probs=example_maps(a, 2, 1, 4, 8, 8),
        resid=jax.random.normal(b, (2, 1, 8, 16)),
        key=jax.random.normal(c, (2, 1, 8, 2, 4)),
        value=jax.random.normal(d, (2, 1, 8, 2, 4)),
    )


METHOD = Method(
    name="sink_report",
    title="Attention sinks: a survey of use, interpretation and mitigation",
    arxiv=None,
    kind="readout",
    function=sink_report,
    example=_example,
)
