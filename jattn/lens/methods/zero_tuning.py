"""ZeroTuning: only the attention to the initial token is tuned (arXiv 2505.11739).

    p'_0 = g p_0 / D,   p'_i = p_i / D,   D = (g - 1) p_0 + 1      in rows behind the first

which is log g added to the logit of key 0. The larger the sink, the stronger the lever: g > 1
flattens the differences between the others, g < 1 sharpens them, and their ratios stay.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.lens.edits import KeyReweight
from jattn.lens.methods.method import Method


def zero_tuning(gamma: Float[Array, "L h"], length: int, *, key_index: int = 0) -> KeyReweight:
    """The edit; it stays on the fused engine.

    Args:
        gamma: g of each head, positive; 1 changes nothing.
        length: t, number of tokens.
        key_index: which key.

    Example:
        >>> zero_tuning(jnp.full((1, 1), 2.0), 3).weight[0, 0, 0, 0].tolist()
        [2.0, 1.0, 1.0]
    """
    check_count("length", length)
    there = jnp.arange(length) == key_index
    return KeyReweight(jnp.where(there, gamma[:, None, :, None, None], 1.0))


def next_token_entropy(
    logits: Float[Array, "*batch vocab"], where: Bool[Array, "*batch"] | None = None
) -> Float[Array, ""]:
    """Mean entropy of the next token, nats: what is made small without labels.

    Args:
        logits: `[..., vocab]`.
        where: tokens that count; default all.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.5], [1.0, 1e-30]]))
        >>> [round(float(next_token_entropy(logits, jnp.array(w))), 4)
        ...  for w in ([True, False], [True, True])]
        [0.6931, 0.3466]
    """
    logs = jax.nn.log_softmax(logits, -1)
    return -(jnp.exp(logs) * logs).sum(-1).mean(where=where)


METHOD = Method(
    name="zero_tuning",
    title="ZeroTuning: unlocking the initial token's power",
    arxiv="2505.11739",
    kind="edit",
    function=zero_tuning,
    example=lambda key: {
        "gamma": jax.random.uniform(key, (2, 4), minval=0.2, maxval=3.0),
        "length": 8,
    },
    identity={"gamma": jnp.ones((2, 4))},
)
