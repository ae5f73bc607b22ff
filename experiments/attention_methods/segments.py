"""Learned segments: probabilistic attention finds how far what matters reaches.

Only the first n symbols of a sequence decide what is to be told, the mean of their values, and the
first token has to tell it. Attention alone cannot know n. In the first task n is the same for all
sequences of a seed and bos is a parameter of each place; in the second n differs, a space stands at
n, and bos is a function of the symbol. Then the splitter cuts documents of many words.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_methods.common import train
from experiments.plots import COLORS, label, log_scale, panels
from jattn.mechanisms import zoo
from jattn.mechanisms.layers.heads import merge_heads, project_output, qkv, qkvo_init
from jattn.mechanisms.layers.linear_maps import linear
from jattn.mechanisms.softmax import segment_splitter as splitter
from jattn.mechanisms.softmax.probabilistic_attention import probabilistic_attention
from jattn.training import Claim, Paper, Run
from jattn.training.claims import own

PAPER = Paper("arXiv 2601.21768", "Zonkey")
SPACE = 0
LETTERS = "_abcdefghijklmnopqrstuvwxyz"
SPACES_LATER = 0.2  # share of spaces among the symbols behind the first
SHOWN = 32


def segments(run: Run, config) -> list[Claim]:
    """Learns where segments end, by place and by symbol, and cuts documents."""
    settings = config.segments
    values = jax.random.normal(jax.random.key(config.seed), (settings.symbols,))
    by_place = _by_place(run, config, values)
    by_symbol = _by_symbol(run, config, values, "probabilistic_attention")
    softmax = _by_symbol(run, config, values, "softmax_attention")
    documents = run.cached(
        "segments_documents", lambda: _documents(settings, by_symbol.params, config.seed)
    )
    _figure(run, settings, by_place, by_symbol, softmax, documents)
    return _claims(settings, by_place.history, by_symbol.history, softmax.history, documents)


def _embedded(key, settings) -> dict[str, jax.Array]:
    table, out = jax.random.split(key)
    return {
        "table": jax.random.normal(table, (settings.symbols, settings.dim)),
        "out": jax.random.normal(out, (settings.dim,)) * settings.dim**-0.5,
    }


def _mean_of_first(values, tokens, n):
    """The mean value of the first n symbols, `[b]`."""
    inside = jnp.arange(tokens.shape[-1]) < n[..., None]
    return jnp.mean(values[tokens], axis=-1, where=inside)


def _by_place(run: Run, config, values):
    """Each seed has its own n, which its bos must find."""
    settings = config.segments

    def init(key):
        of_length, shared, own = jax.random.split(key, 3)
        return _embedded(own, settings) | {
            "attention": qkvo_init(shared, settings.dim, 1),
            "logits": jnp.full(settings.length, splitter.initial_bias(settings.length)),
            # What the task is, not a parameter: no gradient reaches it.
            "n": jax.random.randint(of_length, (), 2, settings.length - 1).astype(jnp.float32),
        }

    def sample(key):
        return jax.random.randint(key, (settings.length,), 0, settings.symbols)

    def bos(params):
        return splitter.beginning_probabilities(params["logits"])

    def loss(params, tokens):
        x = params["table"][tokens]
        query, key, value = qkv(params["attention"], x, x, 1, 1)
        existence = jnp.broadcast_to(splitter.existence_probabilities(bos(params)), tokens.shape)
        out = probabilistic_attention(query[:, :1], key, value, existence[:, :1], existence)
        told = project_output(params["attention"], merge_heads(out))[:, 0] @ params["out"]
        n = jax.lax.stop_gradient(params["n"])
        return jnp.mean((told - _mean_of_first(values, tokens, n)) ** 2)

    def record(params):
        return {"n": params["n"], "bos": bos(params)}

    name = "segments_by_place"
    return train(run, name, init, loss, sample, settings.place, seed=config.seed, record=record)


def _bos_of(params, tokens):
    """bos of each token, by the mixer's own splitter."""
    x = params["table"][tokens]
    logits = linear(x, params["mixer"]["splitter"])[..., 0] + params["mixer"]["splitter_bias"]
    return splitter.beginning_probabilities(logits)


def _by_symbol(run: Run, config, values, mechanism: str):
    """A space stands at n, and more of them later."""
    settings = config.segments
    probabilistic = mechanism == "probabilistic_attention"
    options = {"max_segment_length": settings.length} if probabilistic else {}
    mixer = zoo.make(mechanism, dim=settings.dim, heads=settings.heads, **options)
    place = jnp.arange(settings.length)

    def init(key):
        of_mixer, own = jax.random.split(key)
        return _embedded(own, settings) | {"mixer": mixer.init(of_mixer)}

    def sample(key):
        of_letters, of_spaces, of_n = jax.random.split(key, 3)
        n = jax.random.randint(of_n, (), 2, settings.length - 1)
        letters = jax.random.randint(of_letters, (settings.length,), 1, settings.symbols)
        spaces = jax.random.uniform(of_spaces, (settings.length,)) < SPACES_LATER
        return jnp.where((place == n) | ((place > n) & spaces), SPACE, letters), n

    def loss(params, batch):
        tokens, n = batch
        told = mixer.apply(params["mixer"], params["table"][tokens])[:, 0] @ params["out"]
        return jnp.mean((told - _mean_of_first(values, tokens, n)) ** 2)

    test = jax.vmap(sample)(
        jax.random.split(jax.random.key(config.seed + 1_000_000), settings.test_size)
    )

    def record(params):
        found = {"error": loss(params, test)}
        if not probabilistic:
            return found
        existence = splitter.existence_probabilities(_bos_of(params, test[0]))
        ends = existence[:, :-1] - existence[:, 1:]  # the segment ends before place 1, 2, ...
        return found | {"found": (ends.argmax(-1) + 1 == test[1]).mean()}

    name = f"segments_{mechanism}"
    return train(run, name, init, loss, sample, settings.symbol, seed=config.seed, record=record)


def _documents(settings, params, seed: int) -> dict[str, jax.Array]:
    """Documents of random words, and where the splitter of each seed begins segments."""
    of_letters, of_spaces = jax.random.split(jax.random.key(seed + 2_000_000))
    shape = (settings.test_size, 4 * settings.length)
    letters = jax.random.randint(of_letters, shape, 1, settings.symbols)
    spaces = jax.random.uniform(of_spaces, shape) < SPACES_LATER
    tokens = jnp.where(spaces, SPACE, letters)
    bos = jax.vmap(lambda params: _bos_of(params, tokens))(params)
    starts = jax.vmap(lambda bos: splitter.segment_starts(bos, max_length=shape[1]))(bos)
    return {"tokens": tokens, "bos": bos, "starts": starts}


def _claims(settings, place, symbol, softmax, documents) -> list[Claim]:
    n, bos = place["n"][-1].astype(int), place["bos"][-1]
    peaks = bos[:, 1:].argmax(-1) + 1
    # The first token begins a segment in any case.
    begun, space = documents["starts"][..., 1:], documents["tokens"][None, :, 1:] == SPACE
    both = (begun & space).sum((1, 2))
    seeds = f"{settings.symbol.seeds} seeds"
    return [
        PAPER.claim(
            "segments-length",
            "Gradients through p find the length: bos is largest at n, share of cases.",
            0.9,
            float((peaks == n).mean()),
            ">",
            because="one miss in ten counts as none",
            note=f"{len(n)} seeds, n from {n.min()} to {n.max()} of {settings.length}",
        ),
        PAPER.claim(
            "segments-spaces",
            "A segment ends most probably at the space after it: share of sequences, least of the "
            "seeds.",
            0.9,
            float(symbol["found"][-1].min()),
            ">",
            because="one miss in ten counts as none",
            note=f"{seeds}; before training {symbol['found'][0].mean():.2f}",
        ),
        PAPER.claim(
            "segments-recall",
            "Documents are cut at their spaces: share of spaces, least of the seeds.",
            0.9,
            float((both / space.sum()).min()),
            ">",
            because="one miss in ten counts as none",
            note=seeds,
        ),
        PAPER.claim(
            "segments-precision",
            "They are cut nowhere else: share of cuts that are at spaces, least of the seeds.",
            0.9,
            float((both / np.maximum(begun.sum((1, 2)), 1)).min()),
            ">",
            because="one miss in ten counts as none",
            note=seeds,
        ),
        Claim(
            "segments-error",
            "Where segments end decides the task: error over that of softmax attention, mean.",
            own("a tenth is a clear gain"),
            0.1,
            float(symbol["error"][-1].mean() / softmax["error"][-1].mean()),
            "<",
            note=f"{seeds}; softmax attention {softmax['error'][-1].mean():.3f}",
        ),
    ]


def _figure(run: Run, settings, by_place, by_symbol, softmax, documents) -> None:
    figure, axes = panels(1, 3, width=3.0, height=2.6, width_ratios=(1, 2, 1))
    left, middle, right = axes[0]
    n, bos = by_place.history["n"][-1].astype(int), by_place.history["bos"][-1]
    for length, of_case in zip(n, bos, strict=True):
        left.plot(np.arange(1, settings.length) - length, of_case[1:], color=COLORS[0], alpha=0.3)
    left.axvline(0, color="black", linestyle=":", linewidth=0.8)
    label(left, "place less n", "bos", "n of the seed")
    shown = min(SHOWN, documents["tokens"].shape[1])
    text = documents["tokens"][0, :shown]
    starts = documents["starts"][0, 0, :shown]
    colors = [COLORS[1] if start else COLORS[0] for start in starts]
    middle.bar(np.arange(shown), documents["bos"][0, 0, :shown], color=colors)
    middle.set_xticks(np.arange(shown), [LETTERS[t % len(LETTERS)] for t in text], fontsize=8)
    middle.tick_params(axis="x", length=0)
    label(middle, "a document", "bos", "cut at spaces")
    for fitted, name, color in ((softmax, "softmax", 6), (by_symbol, "probabilistic", 0)):
        curve = fitted.history["error"]
        right.plot(fitted.steps, curve, color=COLORS[color], linewidth=1)
        right.plot([], [], color=COLORS[color], label=name)
    log_scale(right)
    label(right, "step", "squared error", "what the first word says")
    run.save_figure(
        figure,
        "learned_segments",
        "Left: bos over places for every seed, shifted by the n that its task has; it peaks where "
        "what matters ends. Middle: bos of a document's symbols (_ is a space); orange ones begin "
        "a segment. Right: without p attention cannot tell the first word from the others.",
    )
