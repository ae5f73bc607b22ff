"""Standard transformers on English text: attention of common and rare words over training.

Post-norm layers with one head, a causal mask and sinusoidal positions, as the paper trains on text.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.scan_and_snap import figures
from experiments.scan_and_snap.common import claim_of
from jattn.attention import attend, masks
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.tasks.sequence_classes import Sequence
from jattn.tasks.text import english_text, windows, word_tokens
from jattn.theory import scan_snap_model
from jattn.training import Claim, Run, UsageError, map_over_devices

PLAIN_RATES = (10.0, 1.0)  # of the decoder and of attention, in the model of theorem 2
HIDDEN_RATE = 2.0  # of the feed-forward weights, relative to the others (the paper: 10 against 5)


def init(key: jax.Array, *, vocabulary: int, dim: int, layers: int) -> dict[str, Any]:
    """Parameters, linear maps as frameworks initialise them."""
    keys = jax.random.split(key, 2 + layers)
    names = ("query", "key", "value", "output", "up", "down")
    return {
        "embed": jax.random.uniform(keys[0], (vocabulary, dim), minval=-0.1, maxval=0.1),
        "head": linear_init(keys[1], dim, vocabulary),
        "layers": [
            {n: linear_init(jax.random.fold_in(own, i), dim, dim) for i, n in enumerate(names)}
            for own in keys[2:]
        ],
    }  # fmt: skip


def positions(length: int, dim: int) -> np.ndarray:
    """Sinusoidal position vectors `[t, m]`."""
    angle = np.arange(length)[:, None] / 10_000 ** (np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, dim).astype(np.float32)


def normalise(x: jax.Array) -> jax.Array:
    """Layer norm without parameters."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def forward(params, tokens, key=None, rate: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Logits `[b, t, vocabulary]` and the first layer's attention `[b, t, s]`."""
    dim = params["embed"].shape[1]
    x = params["embed"][tokens] * dim**0.5 + positions(tokens.shape[1], dim)
    first = jnp.zeros(0)

    def dropped(x, number):
        if key is None:
            return x
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - rate, x.shape)
        return jnp.where(kept, x / (1 - rate), 0)

    for number, layer in enumerate(params["layers"]):
        query, keys, value = ((x @ layer[n])[:, :, None] for n in ("query", "key", "value"))
        mixed, weights = attend(
            query, keys, value, mask=masks.causal(), return_weights=True, implementation="reference"
        )
        first = weights[:, 0] if number == 0 else first
        x = normalise(x + dropped(mixed[:, :, 0] @ layer["output"], 2 * number))
        hidden = jax.nn.relu(x @ layer["up"]) @ layer["down"]
        x = normalise(x + dropped(hidden, 2 * number + 1))
    return x @ params["head"], first


def statistics(weights: jax.Array, tokens: jax.Array, common: int) -> dict[str, jax.Array]:
    """Entropy in nats, and the share of attention on common words over their share of the context.

    Only queries with at least eight words before them count.
    """
    later = slice(8, None)
    entropy = -jnp.sum(weights * jnp.log(jnp.maximum(weights, 1e-30)), -1)[:, later].mean()
    is_common = (tokens < common)[:, None].astype(weights.dtype)
    length = tokens.shape[1]
    uniform = jnp.tril(jnp.ones((length, length))) / jnp.arange(1, length + 1)[:, None]
    paid = (weights * is_common).sum(-1)[:, later].mean()
    there = (uniform * is_common).sum(-1)[:, later].mean()
    return {"entropy": entropy, "common": paid / there}


def train(run: Run, config, tokens, vocabulary: int, common: int, *, layers: int, optimizer: str):
    """Trains with each learning rate of the config, spread over devices.

    Returns:
        Curves `[seeds, rates, logs]`, and the maps of the first layer on one held-out sequence,
        `"map"`, `[seeds, rates, logs, t, t]`.
    """
    text = config.text_model
    sample = windows(tokens, text.length + 1)
    held_out = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), 32))
    chunk = max(text.steps // text.logs, 1)

    def one_cell(cell):
        rate = cell["rate"]
        start, data = jax.random.split(jax.random.key(cell["seed"]))
        params = init(start, vocabulary=vocabulary, dim=text.dim, layers=layers)
        scale = jax.tree.map_with_path(
            lambda path, _: HIDDEN_RATE if path[-1] in _FEED_FORWARD else 1.0, params
        )
        clip = optax.clip_by_global_norm(0.5)
        adam = optax.scale_by_adam()
        state = adam.init(params)

        def loss(params, batch, key):
            logits, _ = forward(params, batch[:, :-1], key, text.dropout)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

        def step(carry, number):
            params, state = carry
            key = jax.random.fold_in(data, number)
            batch = jax.vmap(sample)(jax.random.split(key, text.batch_size))
            value, grads = jax.value_and_grad(loss)(params, batch, key)
            if optimizer == "sgd":
                grads, _ = clip.update(grads, clip.init(params))
                moves = jax.tree.map(lambda g, s: g * s, grads, scale)
            else:
                moves, state = adam.update(grads, state)
            return (jax.tree.map(lambda p, m: p - rate * m, params, moves), state), value

        def seen(params):
            maps = forward(params, held_out[:, :-1])[1]
            return statistics(maps, held_out[:, :-1], common) | {"map": maps[0]}

        def log(carry, first):
            noted = seen(carry[0])
            carry, losses = jax.lax.scan(step, carry, first + jnp.arange(chunk))
            return carry, noted | {"loss": losses.mean()}

        carry, curves = jax.lax.scan(log, (params, state), chunk * jnp.arange(text.logs))
        end = seen(carry[0])
        end = {"loss": curves["loss"][-1]} | end
        return {name: jnp.concatenate([c, end[name][None]]) for name, c in curves.items()}

    rates = text.sgd_rates if optimizer == "sgd" else text.adam_rates
    grid = np.meshgrid(config.seed + np.arange(text.seeds), rates, indexing="ij")
    cells = {"seed": grid[0].ravel(), "rate": grid[1].ravel().astype(np.float32)}
    compute = partial(map_over_devices(one_cell, run.parallel), cells)
    curves = run.cached(f"text_{optimizer}_{layers}", compute)
    return {name: c.reshape(text.seeds, len(rates), *c.shape[1:]) for name, c in curves.items()}


def train_plain(run: Run, config, tokens, vocabulary: int, common: int) -> np.ndarray:
    """Attention to common words of theorem 2's model on text, relative to their share.

    One layer without positions, the decoder faster than attention, normalised f, SGD.

    Returns:
        `[seeds, 2]`: at the start, and at the end.
    """
    text = config.text_model
    sample = windows(tokens, text.length + 1)

    def batch_of(key):
        rows = jax.vmap(sample)(jax.random.split(key, text.batch_size))
        context = rows[:, :-1]
        counts = jax.vmap(lambda row: jnp.zeros(vocabulary).at[row[:-1]].add(1.0))(context)
        return Sequence(counts, context[:, -1], rows[:, -1])

    def share(params, batch):
        paid = scan_snap_model.attention(params.Z[batch.query], batch.counts)[:, :common].sum(-1)
        there = batch.counts[:, :common].sum(-1) / batch.counts.sum(-1)
        return paid.mean() / there.mean()

    def one_seed(seed):
        start, data = jax.random.split(jax.random.key(seed))
        held_out = jax.vmap(batch_of)(jax.random.split(jax.random.fold_in(start, 1), 16))
        mean_share = lambda params: jax.lax.map(lambda b: share(params, b), held_out).mean()

        def step(params, number):
            batch = batch_of(jax.random.fold_in(data, number))
            grads = jax.grad(scan_snap_model.loss)(params, batch)
            y, z = params.Y - PLAIN_RATES[0] * grads.Y, params.Z - PLAIN_RATES[1] * grads.Z
            return scan_snap_model.Parameters(y, z), None

        params = scan_snap_model.init(start, vocabulary)
        after, _ = jax.lax.scan(step, params, jnp.arange(text.steps))
        return {"share": jnp.stack([mean_share(params), mean_share(after)])}

    cells = config.seed + np.arange(text.seeds)
    compute = partial(map_over_devices(one_seed, run.parallel), cells)
    return run.cached("text_plain", compute)["share"]


_FEED_FORWARD = tuple(jax.tree_util.DictKey(name) for name in ("up", "down"))


def text(run: Run, config) -> list[Claim]:
    """Attention on real text: entropy falls, then freezes; common words lose."""
    settings = config.text_model
    try:
        words = word_tokens(english_text(settings.file), settings.vocabulary)
        windows(words.ids, settings.length + 1)
    except ValueError as error:
        raise UsageError(f"text_model: {error}") from None
    # Common words: the most frequent ones that make up half of the text.
    common = int(np.searchsorted(np.cumsum(words.counts[:-1]) / words.counts.sum(), 0.5)) + 1
    claims, found = [], {}
    for optimizer in ("sgd", "adam"):
        for layers in settings.layers:
            run.note(f"text: {layers} layers, {optimizer}")
            curves = train(
                run, config, words.ids, len(words.words), common, layers=layers, optimizer=optimizer
            )
            found[optimizer, layers] = curves
            entropy, share = curves["entropy"], curves["common"]  # [seeds, rates, logs]
            change = np.abs(entropy[..., -1] - entropy[..., 0])
            quarter = -(entropy.shape[-1] // 4) - 1
            late = np.median(np.abs(entropy[..., -1] - entropy[..., quarter]) / change, axis=1)
            fell = (entropy[..., -1] - entropy[..., 0]).max(1)
            steps = np.diff(entropy[..., -1], axis=1).max(1)
            model = f"{layers} layers, {optimizer}" if layers > 1 else f"1 layer, {optimizer}"
            rates = settings.sgd_rates if optimizer == "sgd" else settings.adam_rates
            final = entropy[..., -1].mean(0)
            shown = ", ".join(f"{rate:g}: {e:.2f}" for rate, e in zip(rates, final))  # noqa: B905
            worst = float((share[..., -1] / share[..., 0]).max())
            claims += [
                claim_of(f"T1-{optimizer}-{layers}", f"text, {model}: attention of layer 0 gets "
                         "sparser: entropy at the end minus at the start, worst rate", 0.0,
                         float(np.median(fell)), "<", None, where="fig. 7", seeds=fell,
                         note=f"final entropies {shown}"),
                claim_of(f"T2-{optimizer}-{layers}", f"text, {model}: then it freezes: change over "
                         "the last quarter / whole change, median over rates", 0.25,
                         float(np.median(late)), "<=", where="fig. 7", seeds=late,
                         because="a steady change would have a quarter",
                         note=f"common words: share paid / share of the context changes by a "
                         f"factor of {worst:.2f} at the worst rate, in a model with positions"),
                claim_of(f"T3-{optimizer}-{layers}", f"text, {model}: higher rates end sparser: "
                         "largest step of the final entropy as the rate grows", 0.0,
                         float(np.median(steps)), "<=", None, where="fig. 10", seeds=steps),
            ]  # fmt: skip
    plain = train_plain(run, config, words.ids, len(words.words), common)
    ratio = plain[:, 1] / plain[:, 0]
    claims.append(
        claim_of("T4", "text, one layer without positions: common words lose attention: share paid "
                 "/ share of the context, end over start", 1.0, float(np.median(ratio)), "<", None,
                 where="theorem 2 on text", seeds=ratio,
                 note=f"the {common} most frequent words are common")
    )  # fmt: skip
    figures.text_curves(run, found, settings)
    figures.text_maps(run, found, settings)
    return claims
