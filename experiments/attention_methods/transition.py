"""Recommending the next item: long and short queries, and transitions distilled into the table.

A user likes one cluster of items. Each step is an item of it, or, with some probability, one of the
few that tend to follow the last item, whatever their cluster. What follows an item is known from
all users; what a user likes shows in many of the last items, and not in the last one alone. The
settings make both worth about the same. Where transitions are more frequent (0.25 of the steps, and
longer training) the short query alone was ahead of both together, 0.330 to 0.319.

The four models differ in alpha and in the weight of distillation only, so they are trained side by
side, from the same parameters and on the same batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import cross_entropy
from experiments.plots import COLORS, label, panels
from jattn.mechanisms.combinators import mix
from jattn.mechanisms.softmax.window_query_attention import make_layer
from jattn.training import Claim, Paper, Run, UsageError, fit
from jattn.training.distillation import transition_counts, transition_loss, transition_targets

PAPER = Paper("arXiv 2311.01056", "MQSA-TED")
MODELS = ("short", "long", "MQSA", "MQSA-TED")
AMONG = 10
# The steps of each user that are held out, the last ones.
HELD_OUT = 4
L2 = 1e-4
NOTES = 5


def transition(run: Run, config) -> list[Claim]:
    """Trains on what users did, and looks for what they do next among the first ten."""
    settings = config.transition
    if settings.vocabulary % settings.clusters:
        raise UsageError(
            f"transition.clusters: expected a divisor of {settings.vocabulary} items, "
            f"got {settings.clusters}"
        )
    sequences = _users(jax.random.key(config.seed), settings)
    seen = transition_counts(sequences[:, :-HELD_OUT], settings.vocabulary)
    result = _trained(run, config, sequences, seen)
    _figure(run, result)
    return _claims(settings, result.history, float(_test(sequences, seen)[2].mean()))


def _users(key: jax.Array, settings) -> jax.Array:
    """What each user did, `[users, length + HELD_OUT]`."""
    of_successors, of_users = jax.random.split(key)
    shape = (settings.vocabulary, settings.successors)
    successors = jax.random.randint(of_successors, shape, 0, settings.vocabulary)

    def user(key):
        of_cluster, of_start, of_steps = jax.random.split(key, 3)
        cluster = jax.random.randint(of_cluster, (), 0, settings.clusters)

        def liked(key):
            number = jax.random.randint(key, (), 0, settings.vocabulary // settings.clusters)
            return cluster + settings.clusters * number

        def step(item, key):
            of_kind, of_liked, of_next = jax.random.split(key, 3)
            follows = successors[item, jax.random.randint(of_next, (), 0, settings.successors)]
            jumps = jax.random.uniform(of_kind) < settings.follows
            item = jnp.where(jumps, follows, liked(of_liked))
            return item, item

        keys = jax.random.split(of_steps, settings.length + HELD_OUT)
        return jax.lax.scan(step, liked(of_start), keys)[1]

    return jax.jit(jax.vmap(user))(jax.random.split(of_users, settings.users))


def _test(sequences, seen):
    """The items before each held-out step, what came, and whether that never came before."""
    length = sequences.shape[1] - HELD_OUT
    items = jnp.concatenate([sequences[:, i + 1 : i + length] for i in range(HELD_OUT)])
    came = sequences[:, length:].T.ravel()
    return items, came, seen[items[:, -1], came] == 0


def _trained(run: Run, config, sequences, seen):
    """Parameters have a leading axis of models; `hits`, `known`, `new`, `table` too."""
    settings = config.transition
    alphas = jnp.array([1.0, 0.0, settings.alpha, settings.alpha])
    weights = jnp.array([0.0, 0.0, 0.0, settings.distilled])
    labels = transition_targets(seen, temperature=settings.temperature)
    short, long = (
        make_layer(dim=settings.dim, heads=1, query_window=window)
        for window in (1, settings.window)
    )

    def init(key):
        of_table, of_places, of_layer = jax.random.split(key, 3)
        params = {
            "table": 0.05 * jax.random.normal(of_table, (settings.vocabulary, settings.dim)),
            "places": 0.05 * jax.random.normal(of_places, (settings.length - 1, settings.dim)),
            "layers": mix(short, long).init(of_layer),
        }
        return jax.tree.map(lambda array: jnp.stack([array] * len(MODELS)), params)

    def sample(key):
        return sequences[jax.random.randint(key, (), 0, settings.users), : settings.length]

    def said(params, items, alpha):
        x = settings.dim**0.5 * params["table"][items] + params["places"]
        return mix(short, long, alpha=alpha).apply(params["layers"], x)

    def loss(params, items):
        before, after = items[:, :-1], items[:, 1:]

        def of_model(params, alpha, weight):
            logits = said(params, before, alpha) @ params["table"].T
            distilled = transition_loss(
                params["table"], labels, before, temperature=settings.temperature
            )
            size = sum((array**2).sum() for array in jax.tree.leaves(params))
            told = cross_entropy(logits, after, jnp.ones(after.shape))
            return told + weight * distilled + L2 / 2 * size

        # A sum: each model has the gradient it would have alone.
        return jax.vmap(of_model)(params, alphas, weights).sum()

    items, came, new = _test(sequences, seen)
    asked, most = seen.sum(1) > 0, seen.argmax(1)

    def among_first(logits, target):
        own = jnp.take_along_axis(logits, target[:, None], axis=1)
        return (logits > own).sum(1) < AMONG

    def record(params):
        def of_model(params, alpha):
            table = params["table"]
            hit = among_first(said(params, items, alpha)[:, -1] @ table.T, came)
            alone = jnp.where(jnp.eye(settings.vocabulary, dtype=bool), -jnp.inf, table @ table.T)
            return {
                "hits": hit.mean(),
                "known": jnp.mean(hit, where=~new),
                "new": jnp.mean(hit, where=new),
                "table": jnp.mean(among_first(alone, most), where=asked),
            }

        return jax.vmap(of_model)(params, alphas)

    rate = optax.warmup_constant_schedule(0.0, settings.learning_rate, 50)
    return fit(
        init,
        loss,
        sample,
        optax.adam(rate, b2=0.99),
        run=run,
        name="transition",
        seeds=settings.seeds,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=config.seed,
        log_every=max(settings.steps // NOTES, 1),
        record=record,
    )


def _claims(settings, history, share_new: float) -> list[Claim]:
    end: dict[str, dict[str, float]] = {
        field: dict(zip(MODELS, history[field][-1].mean(0).tolist(), strict=True))
        for field in ("hits", "known", "new", "table")
    }

    def note(field: str, *models: str) -> str:
        found = ", ".join(f"{name} {end[field][name]:.3f}" for name in models or MODELS)
        return f"mean of {settings.seeds} seeds: {found}"

    hits = end["hits"]
    return [
        PAPER.claim(
            "transition-long",
            "Where the transition is new, a long query finds more than a short one: HR@10.",
            end["new"]["short"],
            end["new"]["long"],
            ">",
            because="it is what the short query has in this run",
            note=f"{note('new')}; {share_new:.2f} of the transitions are new",
        ),
        PAPER.claim(
            "transition-both",
            "Both together are no worse than the better one: HR@10.",
            max(hits["short"], hits["long"]),
            hits["MQSA"],
            ">=",
            0.005,
            because="it is what the better one has in this run",
            note=note("hits"),
        ),
        PAPER.claim(
            "transition-table",
            "Distillation puts transitions into the table: an item's most frequent successor is "
            "among its ten nearest, share.",
            end["table"]["MQSA"],
            end["table"]["MQSA-TED"],
            ">",
            because="it is the share without distillation in this run",
            note=note("table", "MQSA", "MQSA-TED"),
        ),
        PAPER.claim(
            "transition-distilled",
            "Distillation helps, or at least does no harm: HR@10.",
            hits["MQSA"],
            hits["MQSA-TED"],
            ">=",
            0.005,
            because="it is what the run without distillation has",
            note=note("hits", "MQSA", "MQSA-TED"),
        ),
    ]


def _figure(run: Run, result) -> None:
    figure, axes = panels(1, 2, width=3.2, height=2.7)
    left, right = axes[0]
    for i, name in enumerate(MODELS):
        curve = result.history["hits"][..., i].mean(1)
        left.plot(result.steps, curve, color=COLORS[i], marker="o", markersize=2, label=name)
    label(left, "step", f"HR@{AMONG}", "all held-out steps")
    places = np.arange(2)
    for i, name in enumerate(MODELS):
        ends = np.stack([result.history[field][-1][:, i] for field in ("known", "new")], -1)
        at = places + 0.2 * (i - 1.5)
        right.bar(at, ends.mean(0), 0.18, color=COLORS[i], label=name)
        for of_seed in ends:
            right.plot(at, of_seed, "k.", markersize=2)
    right.set_xticks(places, ["transition known", "transition new"])
    label(right, "", f"HR@{AMONG}", "at the end", legend=False)
    run.save_figure(
        figure,
        "long_and_short_queries",
        "How often what comes next is among the first ten. A short query knows transitions, a long "
        "one what the user likes, which is all that helps where a transition is new; both together "
        "have some of each. Dots are seeds.",
    )
