"""Readouts: what records say, as pure functions of them.

Letters: L layers, b, t, h as in the shapes; `probs` are maps `[L, b, h, t, s]`, `resid` the
residual stream `[L, b, t, m]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape
from jattn.lens.edits import ResidAdd
from jattn.lens.run import Model, depth, run
from jattn.lens.sinks import importance
from jattn.nn import Llama
from jattn.nn.llama import read_out

Metric = Callable[[Float[Array, "b ... vocab"]], Float[Array, ""]]


def token_losses(
    logits: Float[Array, "b t vocab"], tokens: Int[Array, "b t"]
) -> Float[Array, "b n"]:
    """-log p of each token but the first, in nats.

    Example:
        >>> losses = token_losses(jnp.zeros((1, 3, 4)), jnp.zeros((1, 3), int))
        >>> losses.shape, round(float(losses[0, 0]), 4)
        ((1, 2), 1.3863)
    """
    logs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    return -jnp.take_along_axis(logs, tokens[:, 1:, None], axis=-1)[..., 0]


def sink_rate(probs: Float[Array, "L b h t t"], threshold: float = 0.3) -> Float[Array, ""]:
    """Share of layers and heads whose first key is a sink: `alpha_0 > threshold`, mean over rows.

    Reference:
        arXiv 2410.10781.
    """
    alpha = importance(probs)[..., 0]
    return (alpha > threshold).mean()


def massive_dims(resid: Float[Array, "b t m"], count: int = 2) -> Int[Array, " count"]:
    """Channels in which the first token's residual stream is largest: where sinks live.

    Reference:
        arXiv 2402.17762.
    """
    size = jnp.abs(resid[:, 0]).max(0)
    return jax.lax.top_k(size, count)[1]


def massiveness(
    resid: Float[Array, "*batch m"], dims: Int[Array, " n"] | None = None
) -> Float[Array, "*batch"]:
    """phi = max over channels of |x| over its root mean square; above about 20 a token is a sink.

    Args:
        resid: `[..., m]`.
        dims: which channels; default all. sqrt(m) is the most there can be.

    Reference:
        arXiv 2503.03321.

    Example:
        >>> massiveness(jnp.array([[3.0, 0.0, 0.0, 0.0]])).tolist()
        [2.0]
    """
    x = resid.astype(jnp.float32)
    chosen = x if dims is None else x[..., dims]
    return jnp.abs(chosen).max(-1) / jnp.sqrt((x**2).mean(-1))


def head_scores(probs: Float[Array, "L b h t t"], period: int) -> dict[str, Float[Array, "L h"]]:
    """How much each head copies, on `[first, r_1 .. r_T, r_1 .. r_T]` with T the period.

    Over the rows of the second copy: `induction`, the weight on the token behind the same one
    before; `duplicate`, that on the same one. `previous`, over all rows, that on the one before.

    Args:
        probs: maps of 1 + 2 T tokens.
        period: T.

    Raises:
        ValueError: another number of tokens.

    Example:
        >>> shifted = jnp.eye(7, k=-1)[None, None, None]
        >>> {name: float(x[0, 0]) for name, x in head_scores(shifted, 3).items()}
        {'induction': 0.0, 'duplicate': 0.0, 'previous': 1.0}
    """
    length = 1 + 2 * period
    if probs.shape[-1] != length:
        raise ValueError(
            f"probs: expected 1 + 2 * {period} = {length} tokens, got {probs.shape[-1]}"
        )
    back = lambda n: jnp.diagonal(probs, -n, axis1=-2, axis2=-1)  # row q has column q - n
    second = lambda n: back(n)[..., period + 1 - n :].mean((1, -1))
    return {
        "induction": second(period - 1),
        "duplicate": second(period),
        "previous": back(1).mean((1, -1)),
    }


def logit_lens(model: Model, resid: Float[Array, "*batch m"]) -> Float[Array, "*batch vocab"]:
    """Logits of any residual stream, as if the model ended there.

    Example:
        >>> from flax import nnx
        >>> from jattn.nn import LlamaConfig
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=2, heads=4, kv_heads=2, hidden=32)
        >>> model, tokens = Llama(config, rngs=nnx.Rngs(0)), jnp.zeros((1, 7), int)
        >>> logits, found = run(model, tokens, record=("resid_post",))
        >>> bool(jnp.allclose(logit_lens(model, found["resid_post"])[-1], logits, atol=1e-5))
        True
    """
    if isinstance(model, Llama):
        return read_out(model.config, model.arrays(), resid)
    return model._read_out(resid)


def grad_times_attention(
    model: Model, tokens: Int[Array, "b t"], loss: Metric, *, at: Int[Array, " b"] | None = None
) -> tuple[Float[Array, "L b h t s"], Float[Array, "L b h t s"]]:
    """Attention maps and the gradient of a loss with respect to them, all layers in one backward.

    Their product is the saliency of LVLMs-Saliency (arXiv 2601.20279) and others.

    Args:
        model: with a site `probs`.
        tokens: `[b, t]`.
        loss: of the logits.
        at: as for `run`: one token of each text, whose logits alone the loss is of.

    Returns:
        `probs` and `d loss / d probs`; where the mask hides keys the first is 0, the second not.
    """
    probs = run(model, tokens, record=("probs",))[1]["probs"]
    added = lambda delta: run(model, tokens, edits=[ResidAdd(delta, site="probs")], at=at)[0]
    grad = jax.grad(lambda delta: loss(added(delta)))(jnp.zeros_like(probs))
    return probs, grad


def direct_attribution(
    model: Llama,
    tokens: Int[Array, "b t"],
    direction: Float[Array, " m"],
    position: int = -1,
) -> dict[str, Float[Array, "..."]]:
    """What each head, MLP and the embedding add to a logit at one position, the norm frozen.

    Args:
        model: a `Llama`.
        tokens: `[b, t]`.
        direction: of unembedding, `W_U[:, a] - W_U[:, b]` for a difference of two logits.
        position: where it is read.

    Returns:
        `heads [L, b, h]`, `mlps [L, b]`, `embedding [b]`; they sum to the logit.

    Reference:
        Logit attribution: arXiv 2211.00593.
    """
    check_shape("direction", direction, "m", {"m": model.config.dim})
    config, weights = model.config, model.arrays()
    sites = ("resid_pre", "resid_post", "z", "mlp_out")
    found = {name: x[:, :, position] for name, x in run(model, tokens, record=sites)[1].items()}
    last = found["resid_post"][-1]
    rms = jnp.sqrt((last**2).mean(-1, keepdims=True) + config.eps)
    seen = direction * weights["norm"] / rms
    output = weights["layers"]["output"].reshape(depth(model), config.heads, config.width, -1)
    return {
        "heads": jnp.einsum("lbhd,lhdm,bm->lbh", found["z"], output, seen),
        "mlps": jnp.einsum("lbm,bm->lb", found["mlp_out"], seen),
        "embedding": jnp.einsum("bm,bm->b", found["resid_pre"][0], seen),
    }
