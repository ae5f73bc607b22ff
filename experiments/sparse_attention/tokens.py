"""Clusters of tokens that copy from afar, and masks of turns that spare the first token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import optimizer
from experiments.sparse_attention.networks import decoder, decoder_init, of_seed, sizes_of
from jattn import attend, masks
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.sparse import routing_attention as routes
from jattn.mechanisms.sparse.turn_masks import turn_mask
from jattn.nn.lora import Adapter, lora_init, lora_merge
from jattn.tasks.copying import copying
from jattn.training import Claim, Paper, Run, fast_weights_loss, fit

ROUTING = Paper("arXiv 2003.05997", "Efficient content-based sparse attention")
TURNS = Paper("arXiv 2605.09932", "FocuSFT")
RANK, ALPHA = 32, 64  # of fast weights


def routing(run: Run, config) -> list[Claim]:
    """Half the heads see a window; the others too, or random clusters, or ones that are learnt."""
    settings = config.routing
    found = {name: _copier(run, config, name) for name in ("local", "random", "routed")}
    gain = {name: found["routed"] - found[name] for name in ("local", "random")}
    recalled = run.cached("recall_of_keys", lambda: _recalled_keys(config, settings))["share"]
    chance = 1 / settings.clusters
    note = ", ".join(f"{name} {values.mean():.3f}" for name, values in found.items())
    return [
        ROUTING.claim("routed-local", f"half the heads routed, a decoder copies from "
                      f"{settings.length // 2} tokens before; with windows of {settings.window} "
                      "alone it cannot: difference of accuracies", 0.3,
                      float(np.median(gain["local"])), ">=", because="chance is near 0",
                      note=note, seeds=gain["local"]),
        ROUTING.claim("routed-random", "clusters that are learnt do better than random ones: "
                      "difference of accuracies", 0.0, float(np.median(gain["random"])), ">",
                      because="0 is no difference", note=note, seeds=gain["random"]),
        ROUTING.claim("recalled-keys", "of clustered data, a query's cluster holds its 8 nearest "
                      "keys: share, over what random clusters of that size hold", 1.5,
                      float(np.median(recalled / chance)), ">",
                      because="half as many again is clearly more", seeds=recalled / chance),
    ]  # fmt: skip


def _copier(run: Run, config, name: str) -> np.ndarray:
    """Accuracy `[seeds]` of a decoder on what it could copy."""
    settings = config.routing
    sizes, half = sizes_of(settings), settings.heads // 2
    size = settings.dim // settings.heads
    sample = copying(settings.vocabulary, settings.length)
    near = masks.sliding_window(settings.window - 1, 0)
    shape = (1, half, settings.length - 1)
    places = jax.random.randint(jax.random.key(7), shape, 0, settings.clusters)

    def init(key):
        of_decoder, of_centroids = jax.random.split(key)
        shape = (settings.layers, half, settings.clusters, size)
        centroids = unit(jax.random.normal(of_centroids, shape))
        return {"decoder": decoder_init(of_decoder, sizes), "centroids": centroids}

    def run_model(params, tokens):
        """Logits, the next centroids, and the sum of commitment losses."""
        fresh, losses = [], []

        def attention(layer, query, key, value):
            split = lambda x: (x[:, :, :half], x[:, :, half:])
            (q, far_q), (k, far_k), (v, far_v) = map(split, (query, key, value))
            local = attend(q, k, v, mask=near)
            if name == "local":
                far = attend(far_q, far_k, far_v, mask=near)
            elif name == "random":
                same = masks.segments(places)
                far = attend(far_q, far_k, far_v, mask=same & masks.causal())
            else:
                centroids = jax.lax.stop_gradient(params["centroids"][layer])
                far = routes.clustered_attention(
                    far_q, far_k, far_v, centroids, mask=masks.causal()
                )
                both = jnp.concatenate([far_q, far_k], axis=1)
                fresh.append(routes.updated_centroids(centroids, both, decay=settings.decay))
                losses.append(routes.commitment_loss(centroids, both))
            return jnp.concatenate([local, far], axis=2)

        logits = decoder(params["decoder"], tokens, sizes, attention)
        centroids = jnp.stack(fresh) if fresh else params["centroids"]
        return logits, centroids, sum(losses, jnp.float32(0))

    def loss(params, batch):
        logits, centroids, commitment = run_model(params, batch.tokens[:, :-1])
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch.tokens[:, 1:])
        counts = batch.copied[:, 1:]
        value = (each * counts).sum() / counts.sum() + settings.commitment * commitment
        kept = jax.tree.map(lambda _: None, params["decoder"])
        return value, {"decoder": kept, "centroids": centroids}

    params = fit(
        init, loss, sample, optimizer(settings.learning_rate, settings.steps), run=run,
        name=f"routing_{name}", seeds=config.seeds, steps=settings.steps,
        batch_size=settings.batch_size, seed=config.seed, log_every=settings.steps // 10,
    ).params  # fmt: skip

    def accuracy():
        batch = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), 64))

        @jax.jit
        def measure(params):
            logits, _, _ = run_model(params, batch.tokens[:, :-1])
            counts = batch.copied[:, 1:]
            return ((logits.argmax(-1) == batch.tokens[:, 1:]) * counts).sum() / counts.sum()

        return {"accuracy": np.array([measure(of_seed(params, i)) for i in range(config.seeds)])}

    return run.cached(f"routing_{name}", accuracy)["accuracy"]


def _recalled_keys(config, settings) -> dict[str, np.ndarray]:
    """Share `[draws]` of each query's 8 nearest keys that are in its cluster."""
    length, clusters, size = 256, settings.clusters, 16

    @jax.jit
    def draw(key):
        of_centres, of_labels, of_noise, of_start = jax.random.split(key, 4)
        centres = 2 * jax.random.normal(of_centres, (2 * clusters, size))
        labels = jax.random.randint(of_labels, (2, length), 0, 2 * clusters)
        noise = jax.random.normal(of_noise, (2, length, size))
        query, keys = (centres[labels] + noise)[:, None, :, None]
        both = jnp.concatenate([query, keys], axis=1)
        first = jax.random.choice(of_start, both[0, :, 0], (clusters,), replace=False)
        centroids = unit(first)[None]
        for _ in range(10):
            centroids = routes.updated_centroids(centroids, both, decay=0.0)
        query_of, key_of = (routes.cluster_scores(x, centroids).argmax(2) for x in (query, keys))
        nearest = jax.lax.top_k((query[0, :, 0] @ keys[0, :, 0].T), 8)[1]
        return (key_of[0, 0][nearest] == query_of[0, 0][:, None]).mean()

    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 3), config.draws)
    return {"share": np.array([draw(key) for key in keys])}


class Chat(NamedTuple):
    """Pairs that are given, then a question and its answer, some times.

    Attributes:
        tokens: `[t]`.
        is_answer: which the assistant wrote, `[t]`.
        seed: for what is drawn anew at each step.
    """

    tokens: jax.Array
    is_answer: jax.Array
    seed: jax.Array


def chats(vocabulary: int, pairs: int, questions: int):
    """Makes the sampler of chats: `k v k v ... | k -> v | k -> v ...`, answers by the assistant."""
    half = vocabulary // 2

    def sample(key: jax.Array) -> Chat:
        of_keys, of_values, of_asked, of_seed = jax.random.split(key, 4)
        keys = 1 + jax.random.permutation(of_keys, half - 1)[:pairs]
        values = half + jax.random.permutation(of_values, vocabulary - half)[:pairs]
        asked = jax.random.permutation(of_asked, pairs)[:questions]
        join = lambda keys, values: jnp.stack([keys, values], 1).ravel()
        tokens = jnp.concatenate([join(keys, values), join(keys[asked], values[asked])])
        place = jnp.arange(2 * (pairs + questions))
        is_answer = (place >= 2 * pairs) & (place % 2 == 1)
        return Chat(tokens, is_answer, jax.random.bits(of_seed))

    return sample


def turns(run: Run, config) -> list[Claim]:
    """Fine-tuned with a causal mask, with one of turns, and with fast weights besides."""
    names = ("causal", "turns", "fast")
    found = {name: _chatter(run, config, name) for name in names}
    sink = {name: found[name]["sink"] for name in names}
    right = {name: found[name]["longer"] for name in names}
    of = lambda each: ", ".join(f"{name} {values.mean():.4f}" for name, values in each.items())
    ratio = sink["turns"] / sink["causal"]
    gain = right["fast"] - right["causal"]
    return [
        TURNS.claim("turns-sink", "where what is given is read in both directions, the first token "
                    "gets less of all weight: ratio", 0.5, float(np.median(ratio)), "<=",
                    where="529 times less in the paper", because="half is clearly less",
                    note=of(sink), seeds=ratio),
        TURNS.claim("fast-recall", "with fast weights besides, recall from twice as many pairs is "
                    "no worse than with a causal mask: difference of accuracies", 0.0,
                    float(np.median(gain)), ">=", where="BABILong",
                    note=of(right) + "; as long as in training: "
                    + of({name: found[name]["same"] for name in names}), seeds=gain),
    ]  # fmt: skip


def _chatter(run: Run, config, name: str) -> dict[str, np.ndarray]:
    """Accuracy on chats of the length of training and of twice that, and mass on token 0."""
    settings = config.turns
    sizes = sizes_of(settings)
    sample = chats(settings.vocabulary, settings.pairs, settings.questions)
    first_adapted = int(settings.layers * (1 - 0.35))

    def logits_of(params, batch, fast=None, weights=None):
        mask = masks.causal() if name == "causal" else turn_mask(batch.is_answer)

        def attention(layer, query, key, value):
            if weights is None:
                return attend(query, key, value, mask=mask)
            out, found = attend(query, key, value, mask=mask, return_weights=True)
            weights.append(found)
            return out

        if fast is not None:
            params = params | {"layers": _adapted(params["layers"], fast, first_adapted)}
        return decoder(params, batch.tokens, sizes, attention)

    def answered(params, batch, fast=None):
        logits = logits_of(params, batch, fast)[:, :-1]
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch.tokens[:, 1:])
        counts = batch.is_answer[:, 1:]
        return (each * counts).sum() / counts.sum()

    def loss(params, batch):
        if name != "fast":
            return answered(params, batch)
        fast = _adapters(jax.random.key(batch.seed[0]), params["layers"][first_adapted:])
        return fast_weights_loss(lambda slow, fast: answered(slow, batch, fast), params, fast)

    params = fit(
        lambda key: decoder_init(key, sizes), loss, sample,
        optimizer(settings.learning_rate, settings.steps), run=run, name=f"turns_{name}",
        seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=settings.steps // 10,
    ).params  # fmt: skip

    def tested():
        key = jax.random.key(config.seed + 1)
        longer = chats(settings.vocabulary, 2 * settings.pairs, settings.questions)
        rows = {}
        for title, sampler in (("same", sample), ("longer", longer)):
            batch = jax.vmap(sampler)(jax.random.split(key, 256))

            @jax.jit
            def measure(params, batch=batch):
                weights: list[jax.Array] = []
                logits = logits_of(params, batch, weights=weights)[:, :-1]
                counts = batch.is_answer[:, 1:]
                right = (logits.argmax(-1) == batch.tokens[:, 1:]) * counts
                # Of answers' queries, which see as many keys under either mask.
                asking = jnp.pad(counts, ((0, 0), (0, 1)))[:, None]
                sink = [(w[..., 0] * asking).sum((0, 2)) / asking.sum() for w in weights]
                return right.sum() / counts.sum(), jnp.stack(sink).mean()

            found = [measure(of_seed(params, seed)) for seed in range(config.seeds)]
            rows[title] = np.array([accuracy for accuracy, _ in found])
            if title == "same":
                rows["sink"] = np.array([mass for _, mass in found])
        return rows

    return run.cached(f"turns_{name}", tested)


def _maps(layer) -> dict[str, jax.Array]:
    """The matrices of a layer's MLP by name."""
    return {part: affine["weight"] for part, affine in layer["mlp"].items()}


def _adapters(key: jax.Array, layers) -> list[dict[str, Adapter]]:
    """Low-rank changes of each MLP that are none yet."""
    return [
        lora_init(own, _maps(layer), rank=RANK, targets=tuple(layer["mlp"]))
        for own, layer in zip(jax.random.split(key, len(layers)), layers, strict=True)
    ]


def _adapted(layers, fast, first: int):
    """Layers whose MLPs, from the first that is adapted on, have their changes added."""

    def changed(layer, adapters):
        merged = lora_merge(_maps(layer), adapters, scale=ALPHA / RANK)
        mlp = {part: affine | {"weight": merged[part]} for part, affine in layer["mlp"].items()}
        return layer | {"mlp": mlp}

    return layers[:first] + [
        changed(layer, adapters) for layer, adapters in zip(layers[first:], fast, strict=True)
    ]
