"""Softplus attention: without training, one key among many; trained, text longer than in training.

Softmax thins out: the more keys there are, the less weight is left for the one that matches.
Re-weighted softplus attention drops all keys below the average, of which there are as many more.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.longer_sequences.common import losses_by_place
from experiments.plots import COLORS, label, log_scale, panels
from experiments.token_tasks import make_task
from jattn.attention import attend
from jattn.mechanisms.softmax.reweighted_softplus_attention import reweighted_softplus_attention
from jattn.mechanisms.softmax.softplus_attention import softplus_attention
from jattn.nn import TransformerConfig
from jattn.training import Claim, Paper, Run, UsageError

PAPER = Paper("arXiv 2501.13428", "Softplus attention with re-weighting")
HEAD, COSINE = 64, 0.8
VARIANTS = {
    "softmax": "softmax_attention",
    "LSSA": "softplus_attention",
    "LSSAR p=3": ("reweighted_softplus_attention", {"power": 3}),
    "LSSAR p=15": ("reweighted_softplus_attention", {"power": 15}),
}


def softplus(run: Run, config) -> list[Claim]:
    """Weighs one key among many, and reads text beyond the length of training."""
    settings = config.softplus
    if len(settings.factors) < 2 or sorted(settings.factors) != [1, *settings.factors[1:]]:
        raise UsageError(
            f"softplus.factors: expected 1 and then larger ones, got {tuple(settings.factors)}"
        )
    if not {"softmax", "LSSAR p=15"} <= set(settings.trained) <= set(VARIANTS):
        raise UsageError(
            f"softplus.trained: expected some of {', '.join(VARIANTS)}, softmax and LSSAR p=15 "
            f"among them, got {', '.join(settings.trained)}"
        )
    alone = run.cached(
        "softplus_alone",
        lambda: {
            str(n): np.asarray(
                jax.jit(weights, static_argnums=(1, 2))(_key(config), n, settings.draws)
            )
            for n in settings.among
        },
    )
    alone = np.stack([alone[str(n)] for n in settings.among])
    task = make_task("text", settings)
    lengths = [factor * settings.text_length for factor in settings.factors]
    losses = {}
    for name in settings.trained:
        model = TransformerConfig(
            vocab_size=task.vocabulary,
            dim=settings.dim,
            heads=settings.heads,
            layers=settings.layers,
            mechanisms=VARIANTS[name],
            positions="rotary",
            mlp_ratio=2.0,
        )
        slug = "softplus_" + name.replace(" ", "_").replace("=", "")
        test = task.test(lengths[-1])
        found = losses_by_place(run, slug, model, settings, task.sample, test, seed=config.seed)
        # A decoder's first n places are all there is at length n.
        losses[name] = np.stack([found[:, :n].mean(1) for n in lengths])  # [lengths, seeds]
    _figure(run, settings, alone, lengths, losses)
    return _claims(settings, alone, lengths, losses)


def _key(config) -> jax.Array:
    return jax.random.key(config.seed)


def weights(key: jax.Array, n: int, draws: int) -> jax.Array:
    """Weight of each variant on one key at cosine 0.8 of the query, among n random ones."""
    keys = jax.random.normal(key, (draws, n, 1, HEAD))
    keys /= jnp.linalg.norm(keys, axis=-1, keepdims=True)
    other = jax.random.normal(jax.random.fold_in(key, 1), (draws, 1, 1, HEAD))
    other -= (other * keys[:, :1]).sum(-1, keepdims=True) * keys[:, :1]
    other /= jnp.linalg.norm(other, axis=-1, keepdims=True)
    query = COSINE * keys[:, :1] + (1 - COSINE**2) ** 0.5 * other
    first = jnp.zeros((draws, n, 1, 1)).at[:, 0].set(1.0)
    seen = jnp.full((1, 1), n)
    found = [attend(query, keys, first, scale=HEAD**0.5)]
    found.append(softplus_attention(query, keys, first, visible_keys=seen))
    for power in (3, 15):
        found.append(
            reweighted_softplus_attention(query, keys, first, visible_keys=seen, power=power)
        )
    return jnp.stack(found).mean((1, 2, 3, 4))


def _claims(settings, alone, lengths, losses) -> list[Claim]:
    every = {name: ", ".join(f"{x:.3g}" for x in alone[:, i]) for i, name in enumerate(VARIANTS)}
    rise = {name: row[-1] - row[0] for name, row in losses.items()}
    keys = f"n = {', '.join(map(str, settings.among))}"
    shorter, longer = (
        ", ".join(f"{name} {row[i].mean():.3f}" for name, row in losses.items()) for i in (0, -1)
    )
    return [
        PAPER.claim(
            "softplus-robust",
            "Untrained, p = 15 keeps its weight on the matching key at any number of keys: least.",
            0.99,
            float(alone[:, 3].min()),
            ">=",
            because="the rest counts as rounding",
            note=f"{keys}: {every['LSSAR p=15']}; p = 3 {every['LSSAR p=3']}",
        ),
        PAPER.claim(
            "softplus-thins-out",
            "Softmax thins out: its weight among the most keys.",
            0.05,
            float(alone[-1, 0]),
            "<=",
            because="one in twenty counts as lost",
            note=f"{every['softmax']}; LSSA {every['LSSA']}",
        ),
        PAPER.claim(
            "softplus-length",
            f"From {lengths[0]} to {lengths[-1]} bytes of text the loss of p = 15 rises by less "
            "than half of what softmax's rises, mean of the seeds.",
            0.5 * float(rise["softmax"].mean()),
            float(rise["LSSAR p=15"].mean()),
            "<",
            because="it is half of what softmax's rises in this run",
            note=f"nats at {lengths[0]}: {shorter}; at {lengths[-1]}: {longer}",
        ),
    ]


def _figure(run: Run, settings, alone, lengths, losses) -> None:
    figure, axes = panels(1, 2, width=3.4)
    left, right = axes[0]
    for i, name in enumerate(VARIANTS):
        style = dict(color=COLORS[i], marker="o", markersize=3)
        left.plot(settings.among, alone[:, i], **style, label=name)
        if name in losses:
            right.plot(lengths, losses[name].mean(1), **style)
    log_scale(left)
    log_scale(left, "x")
    log_scale(right, "x")
    label(left, "keys", "weight on the matching key", "untrained")
    label(right, "bytes of text", "loss (nats)", f"trained at {lengths[0]}")
    run.save_figure(
        figure,
        "softplus",
        "Left: the weight on one key at cosine 0.8 among random ones. Right: loss of decoders on "
        "text at and beyond the length of training.",
    )
