"""Attention patterns swapped between models that all solve the same task.

Two seeds, and two moments of one training, learn bigram-backcopy (arXiv 2410.13835): some heads
have to look at the token before a trigger, and which ones do is left to chance. A model then runs
with the attention weights of another one, and keeps its own values and all else.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_methods.common import train
from experiments.functional import Model, cross_entropy, decoder
from experiments.plots import COLORS, label, panels
from jattn.lens.pattern_swap import attention_patterns, with_patterns
from jattn.nn import TransformerConfig
from jattn.tasks.backcopy import backcopy, bigrams
from jattn.training import Claim, Paper, Run, UsageError

PAPER = Paper("arXiv 2510.21866", "Capability ceilings in autoregressive language models")
MIXES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def pattern_swap(run: Run, config) -> list[Claim]:
    """Trains, and counts the copies that are right under patterns of others."""
    study = config.pattern_swap
    if study.seeds < 2:
        raise UsageError(f"pattern_swap.seeds: expected at least 2, got {study.seeds}")
    if study.moments < 2 or study.steps % study.moments:
        raise UsageError(
            f"pattern_swap.moments: expected a divisor of {study.steps} steps, 2 at least, got "
            f"{study.moments}"
        )
    table = bigrams(jax.random.key(config.seed), study.vocabulary, study.triggers)
    draw = backcopy(table, study.triggers, study.length)
    test_keys = jax.random.split(jax.random.key(config.seed + 1_000_000), study.test_size)
    batch = jax.jit(jax.vmap(draw))(test_keys)
    found = {heads: _with_heads(run, config, heads, draw, batch) for heads in study.heads}
    _figure(run, study, found)
    return _claims(study, found)


def _with_heads(run: Run, config, heads: int, draw, batch) -> dict[str, np.ndarray]:
    study = config.pattern_swap
    settings = TransformerConfig(
        vocab_size=study.vocabulary,
        dim=study.dim,
        heads=heads,
        layers=study.layers,
        mlp_ratio=2.0,
        positions="rotary",
    )
    made = decoder(settings)

    def loss(params, batch):
        tokens = batch.tokens
        logits = made.module(params)(tokens[:, :-1])
        return cross_entropy(logits, tokens[:, 1:], jnp.ones(tokens[:, 1:].shape))

    result = train(
        run,
        f"pattern_swap_{heads}_heads",
        made.init,
        loss,
        draw,
        study,
        seed=config.seed,
        record=lambda params: {f"array_{i}": leaf for i, leaf in enumerate(params)},
        log_every=study.steps // study.moments,
    )
    arrays = [result.history[f"array_{i}"] for i in range(len(result.params))]
    return run.cached(
        f"pattern_swap_{heads}_heads", lambda: _measure(made, settings, arrays, batch)
    )


def _measure(made: Model, settings: TransformerConfig, arrays, batch) -> dict[str, jax.Array]:
    """Shares of the copies that are right; arrays are `[moments, seeds, ...]`."""
    last, seeds = len(arrays[0]) - 1, arrays[0].shape[1]
    tokens, asked = batch.tokens[:, :-1], batch.copied[:, 1:]

    def right(logits):
        return ((logits.argmax(-1) == batch.tokens[:, 1:]) & asked).sum() / asked.sum()

    @jax.jit
    def patterns_of(params, tokens):
        return attention_patterns(made.module(params), settings, tokens)

    @jax.jit
    def swapped(params, patterns):
        """Accuracy at every mix, and what the whole swap changes in the logits."""
        model = made.module(params)
        mixed = lambda mix: with_patterns(model, settings, tokens, patterns, mix=mix)
        whole = jnp.abs(mixed(1.0) - model(tokens)).max()
        return jax.lax.map(lambda mix: right(mixed(mix)), jnp.asarray(MIXES)), whole

    at = lambda moment, seed: [x[moment, seed] for x in arrays]
    finals = [at(last, seed) for seed in range(seeds)]
    patterns = [patterns_of(params, tokens) for params in finals]
    between = [[swapped(taker, donor) for donor in patterns] for taker in finals]
    # Other sequences, of which every place is asked of what stands there in these.
    others = [patterns_of(params, jnp.roll(tokens, 1, axis=0)) for params in finals]
    uniform = jax.tree.map(jnp.zeros_like, patterns[0])
    earlier = [
        [swapped(finals[s], patterns_of(at(moment, s), tokens))[0][-1] for s in range(seeds)]
        for moment in range(last + 1)
    ]
    return {
        "between": jnp.stack([jnp.stack([each[0] for each in row]) for row in between]),
        "itself": jnp.stack([between[s][s][1] for s in range(seeds)]),
        "earlier": jnp.stack([jnp.stack(row) for row in earlier]),
        "uniform": jnp.stack([swapped(params, uniform)[0][-1] for params in finals]),
        "shuffled": jnp.stack(
            [swapped(p, other)[0][-1] for p, other in zip(finals, others, strict=True)]
        ),
    }


def _by_mix(found) -> np.ndarray:
    """Accuracy at every mix of all pairs of different seeds, `[pairs, mixes]`."""
    between = found["between"]
    return between[~np.eye(len(between), dtype=bool)]


def _claims(study, found) -> list[Claim]:
    most = found[study.heads[-1]]
    curve = _by_mix(most)
    after = float(curve[:, -1].mean())
    halfway = float(most["earlier"][study.moments // 2].mean())
    trained = min(float(_by_mix(one)[:, 0].min()) for one in found.values())
    return [
        PAPER.claim(
            "swap-trained",
            "All models solve backcopy: least accuracy.",
            0.95,
            trained,
            ">",
            because="a model that fails the task says nothing",
        ),
        PAPER.claim(
            "swap-itself",
            "A model with its own patterns is the same model: largest change of a logit.",
            0.0,
            max(float(one["itself"].max()) for one in found.values()),
            "~=",
        ),
        *(_between_seeds(heads, one) for heads, one in found.items()),
        PAPER.claim(
            "swap-mix",
            "Accuracy falls as more of the other pattern is mixed in: largest rise of the mean.",
            0.02,
            float(np.diff(curve.mean(0)).max()),
            "<=",
            because="a rise of less counts as none",
        ),
        PAPER.claim(
            "swap-checkpoints",
            "Patterns of the same run, half its steps ago, hurt less than those of other seeds.",
            after,
            halfway,
            ">",
            because="it is what the other patterns leave in this run",
        ),
    ]


def _between_seeds(heads: int, found) -> Claim:
    """The claim depends on the number of heads, so it is made for each."""
    curve = _by_mix(found)
    text = found["shuffled"].mean()
    claim = PAPER.claim(
        f"swap-seeds-{heads}",
        f"Patterns of another seed in all {heads} heads a layer: mean accuracy over that before.",
        0.5,
        float(curve[:, -1].mean() / curve[:, 0].mean()),
        "<",
        because="half is a clear loss",
        note=f"{len(curve)} pairs",
    )
    if claim.holds:
        return claim
    why = (
        f"{len(curve)} pairs; patterns on another text leave {text:.2f} only: probably heads of "
        "the same number look to the token before in both seeds, which is all the task needs"
    )
    return dataclasses.replace(claim, note=why)


def _figure(run: Run, study, found) -> None:
    figure, axes = panels(1, 2, width=3.4, height=2.8)
    left, right = axes[0]
    for (heads, one), color in zip(found.items(), COLORS, strict=False):
        curve = _by_mix(one)
        left.plot(MIXES, curve.T, color=color, linewidth=0.6, alpha=0.4)
        left.plot(MIXES, curve.mean(0), color=color, linewidth=2, label=f"{heads} heads")
    label(left, "share of the other seed's pattern", "copies that are right", "between seeds")
    most = found[study.heads[-1]]
    names = ("itself", "halfway", "other seed", "other text", "uniform")
    curve = _by_mix(most)
    values = (
        np.diagonal(most["between"][..., -1]),
        most["earlier"][study.moments // 2],
        curve[:, -1],
        most["shuffled"],
        most["uniform"],
    )
    for place, each in enumerate(values):
        right.bar(place, each.mean(), color=COLORS[0], alpha=0.5)
        right.plot(np.full(len(each), place), each, "o", color="black", markersize=3)
    right.set_xticks(range(len(names)), names, rotation=30, ha="right")
    label(right, "", "copies that are right", f"whole patterns, {study.heads[-1]} heads")
    for axis in axes[0]:
        axis.set_ylim(0, 1.05)
    run.save_figure(
        figure,
        "pattern_swap",
        "Models that all solve backcopy lose much of it under the attention weights of another "
        "seed, and keep it under those of their own past. Points: pairs or seeds.",
    )
