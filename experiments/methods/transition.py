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
from jattn.training import Claim, Run, UsageError, fit
from jattn.training.distillation import transition_counts, transition_loss, transition_targets

SOURCE = "arXiv:2311.01056"
MODELS = ("short", "long", "MQSA", "MQSA-TED")
AMONG = 10
# The steps of each user that are held out, the last ones.
HELD_OUT = 4
L2 = 1e-4
NOTES = 5


def transition(run: Run, config) -> list[Claim]:
    """Trains on what users did, and looks for what they do next among the first ten."""
    part = config.transition
    if part.vocabulary % part.clusters:
        raise UsageError(
            f"transition.clusters: expected a divisor of {part.vocabulary} items, "
            f"got {part.clusters}"
        )
    sequences = _users(jax.random.key(config.seed), part)
    seen = transition_counts(sequences[:, :-HELD_OUT], part.vocabulary)
    result = _trained(run, config, sequences, seen)
    _figure(run, result)
    return _claims(part, result.history, float(_test(sequences, seen)[2].mean()))


def _users(key: jax.Array, part) -> jax.Array:
    """What each user did, `[users, length + HELD_OUT]`."""
    of_successors, of_users = jax.random.split(key)
    shape = (part.vocabulary, part.successors)
    successors = jax.random.randint(of_successors, shape, 0, part.vocabulary)

    def user(key):
        of_cluster, of_start, of_steps = jax.random.split(key, 3)
        cluster = jax.random.randint(of_cluster, (), 0, part.clusters)

        def liked(key):
            number = jax.random.randint(key, (), 0, part.vocabulary // part.clusters)
            return cluster + part.clusters * number

        def step(item, key):
            of_kind, of_liked, of_next = jax.random.split(key, 3)
            follows = successors[item, jax.random.randint(of_next, (), 0, part.successors)]
            jumps = jax.random.uniform(of_kind) < part.follows
            item = jnp.where(jumps, follows, liked(of_liked))
            return item, item

        keys = jax.random.split(of_steps, part.length + HELD_OUT)
        return jax.lax.scan(step, liked(of_start), keys)[1]

    return jax.jit(jax.vmap(user))(jax.random.split(of_users, part.users))


def _test(sequences, seen):
    """The items before each held-out step, what came, and whether that never came before."""
    length = sequences.shape[1] - HELD_OUT
    items = jnp.concatenate([sequences[:, i + 1 : i + length] for i in range(HELD_OUT)])
    came = sequences[:, length:].T.ravel()
    return items, came, seen[items[:, -1], came] == 0


def _trained(run: Run, config, sequences, seen):
    """Parameters have a leading axis of models; `hits`, `known`, `new`, `table` too."""
    part = config.transition
    alphas = jnp.array([1.0, 0.0, part.alpha, part.alpha])
    weights = jnp.array([0.0, 0.0, 0.0, part.distilled])
    labels = transition_targets(seen, temperature=part.temperature)
    short, long = (
        make_layer(dim=part.dim, heads=1, query_window=window) for window in (1, part.window)
    )

    def init(key):
        of_table, of_places, of_layer = jax.random.split(key, 3)
        params = {
            "table": 0.05 * jax.random.normal(of_table, (part.vocabulary, part.dim)),
            "places": 0.05 * jax.random.normal(of_places, (part.length - 1, part.dim)),
            "layers": mix(short, long).init(of_layer),
        }
        return jax.tree.map(lambda array: jnp.stack([array] * len(MODELS)), params)

    def sample(key):
        return sequences[jax.random.randint(key, (), 0, part.users), : part.length]

    def said(params, items, alpha):
        x = part.dim**0.5 * params["table"][items] + params["places"]
        return mix(short, long, alpha=alpha).apply(params["layers"], x)

    def loss(params, items):
        before, after = items[:, :-1], items[:, 1:]

        def of_model(params, alpha, weight):
            logits = said(params, before, alpha) @ params["table"].T
            distilled = transition_loss(
                params["table"], labels, before, temperature=part.temperature
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
            alone = jnp.where(jnp.eye(part.vocabulary, dtype=bool), -jnp.inf, table @ table.T)
            return {
                "hits": hit.mean(),
                "known": jnp.mean(hit, where=~new),
                "new": jnp.mean(hit, where=new),
                "table": jnp.mean(among_first(alone, most), where=asked),
            }

        return jax.vmap(of_model)(params, alphas)

    rate = optax.warmup_constant_schedule(0.0, part.learning_rate, 50)
    return fit(
        init,
        loss,
        sample,
        optax.adam(rate, b2=0.99),
        run=run,
        name="transition",
        seeds=part.seeds,
        steps=part.steps,
        batch_size=part.batch_size,
        seed=config.seed,
        log_every=max(part.steps // NOTES, 1),
        record=record,
    )


def _claims(part, history, share_new: float) -> list[Claim]:
    end: dict[str, dict[str, float]] = {
        field: dict(zip(MODELS, history[field][-1].mean(0).tolist(), strict=True))
        for field in ("hits", "known", "new", "table")
    }

    def note(field: str, *models: str) -> str:
        found = ", ".join(f"{name} {end[field][name]:.3f}" for name in models or MODELS)
        return f"mean of {part.seeds} seeds: {found}"

    hits = end["hits"]
    return [
        Claim(
            "transition-long",
            "Where the transition is new, a long query finds more than a short one: HR@10.",
            SOURCE,
            end["new"]["short"],
            end["new"]["long"],
            ">",
            note=f"{note('new')}; {share_new:.2f} of the transitions are new",
        ),
        Claim(
            "transition-both",
            "Both together are no worse than the better one: HR@10.",
            SOURCE,
            max(hits["short"], hits["long"]),
            hits["MQSA"],
            ">=",
            0.005,
            note=note("hits"),
        ),
        Claim(
            "transition-table",
            "Distillation puts transitions into the table: an item's most frequent successor is "
            "among its ten nearest, share.",
            SOURCE,
            end["table"]["MQSA"],
            end["table"]["MQSA-TED"],
            ">",
            note=note("table", "MQSA", "MQSA-TED"),
        ),
        Claim(
            "transition-distilled",
            "Distillation helps, or at least does no harm: HR@10.",
            SOURCE,
            hits["MQSA"],
            hits["MQSA-TED"],
            ">=",
            0.005,
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
