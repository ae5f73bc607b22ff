"""Bags of instances: branches kept apart, and kept from the loudest instances (ACMIL)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jattn
from experiments.classifier_arms import each_seed
from experiments.plots import COLORS, label, panels
from jattn.losses.attention_maps import diversity
from jattn.mechanisms.layers.linear_maps import linear
from jattn.mechanisms.pooling.acmil import acmil, gated_attention_scores, stochastic_top_k_mask
from jattn.tasks.instance_bags import instance_bag
from jattn.training import Claim, Paper, Run, fit

PAPER = Paper("arXiv 2311.07125", "Attention-challenging multiple instance learning")
LOUDEST = 5  # instances whose share of the weight is measured


class Arm(NamedTuple):
    """A way to train: how many branches, and what share of their loudest instances is hidden."""

    branches: int
    share: float


def bags(run: Run, config) -> list[Claim]:
    """Trains one branch, several, and several that are challenged, on the same few bags."""
    settings = config.bags
    arms = {
        "ABMIL": Arm(1, 0.0),
        "MBA": Arm(settings.branches, 0.0),
        "ACMIL": Arm(settings.branches, settings.share),
    }
    draw = lambda key, count: jax.vmap(
        lambda k: instance_bag(k, instances=settings.instances, dim=settings.dim)
    )(jax.random.split(key, count))
    of_train, of_test = jax.random.split(jax.random.key(config.seed))
    known = draw(of_train, settings.bags)

    def sample(key):
        of_index, of_hidden = jax.random.split(key)
        index = jax.random.randint(of_index, (), 0, settings.bags)
        return known[0][index], known[1][index].astype(int), jax.random.key_data(of_hidden)

    def loss(params, batch):
        key = jax.random.wrap_key_data(batch[2][0])  # any will do: the first bag's
        losses = [
            _loss(params[name], arm, batch[0], batch[1], key, settings.top)
            for name, arm in arms.items()
        ]
        return jnp.stack(losses).sum()

    params = fit(
        lambda key: _init(key, arms, settings), loss, sample,
        optax.adamw(settings.learning_rate, weight_decay=1e-5), run=run, name="bags",
        seeds=settings.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    test = draw(of_test, settings.test)
    found = run.cached("bags", lambda: _measured(arms, params, test))
    for name in arms:
        run.note(
            f"{name}: AUC {found[f'{name} auc'].mean():.3f}, weight on {LOUDEST} instances "
            f"{found[f'{name} mass'].mean():.3f}"
        )
    _draw(run, list(arms), found)
    mass = found["ABMIL mass"] - found["ACMIL mass"]
    gain = found["ACMIL auc"] - found["ABMIL auc"]
    return [
        PAPER.claim(
            "spread", f"weight on the {LOUDEST} loudest instances of positive bags: by how much "
            "ACMIL has less than one branch", 0.2, float(np.median(mass)), ">=",
            because="0.3 to 0.45 was measured before, by another program", seeds=mass,
        ),
        PAPER.claim(
            "bags-auc", "ACMIL tells new bags apart no worse: difference of areas under the curve",
            0.0, float(np.median(gain)), ">=", because="0 is no difference",
            note=f"{found['ACMIL auc'].mean():.3f} against {found['ABMIL auc'].mean():.3f}",
            seeds=gain,
        ),
    ]  # fmt: skip


def _init(key: jax.Array, arms: dict[str, Arm], settings) -> dict[str, Any]:
    def of(arm, key):
        pool = jattn.zoo.make(
            "acmil", dim=settings.width, branches=arm.branches, hidden=settings.hidden
        )
        of_pool, of_project, of_heads = jax.random.split(key, 3)
        bound = settings.width**-0.5
        # Instances have another size than what is pooled of them.
        project = jax.random.normal(of_project, (settings.dim, settings.width))
        heads = jax.random.normal(of_heads, (arm.branches + 1, settings.width, 2))
        return {
            "pool": pool.init(of_pool) | {"project": project * settings.dim**-0.5},
            "heads": bound * heads,  # of the bag, then of each branch
            "biases": jnp.zeros((arm.branches + 1, 2)),
        }

    keys = jax.random.split(key, len(arms))
    return {name: of(arm, own) for (name, arm), own in zip(arms.items(), keys, strict=True)}


def _read(params: Any, x: jax.Array, hidden: jax.Array | None = None):
    """Logits of the bag and each branch, `[b, 1 + k, 2]`, and the branches' maps `[b, k, n]`."""
    branches = acmil(params["pool"], x, hidden=hidden)
    z = jnp.concatenate([branches.mean(1, keepdims=True), branches], axis=1)
    logits = jnp.einsum("bkm,kmc->bkc", z, params["heads"]) + params["biases"]
    scores = _scores(params, x)
    scores = scores if hidden is None else jnp.where(hidden, -jnp.inf, scores)
    return logits, jax.nn.softmax(scores, axis=1).swapaxes(1, 2)


def _scores(params: Any, x: jax.Array) -> jax.Array:
    z = jax.nn.relu(linear(x, params["pool"]["project"]))
    return gated_attention_scores(params["pool"], z)


def _loss(params, arm: Arm, x, labels, key, top: int) -> jax.Array:
    """The bag's loss; of several branches the mean of theirs and how alike their maps are."""
    hidden = None
    if arm.share:
        hidden = stochastic_top_k_mask(_scores(params, x), key, top=top, share=arm.share)
    logits, maps = _read(params, x, hidden)
    wanted = jnp.broadcast_to(labels[:, None], logits.shape[:2])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean(0)
    if arm.branches == 1:
        return losses[0]
    return losses[0] + losses[1:].mean() + diversity(maps).mean()


def _measured(arms: dict[str, Arm], params: Any, test) -> dict[str, np.ndarray]:
    """Area under the curve, and weight on the loudest instances, of each arm, `[seeds]`."""
    x, positive, _ = test

    @jax.jit
    def of_arm(params):
        logits, maps = _read(params, x)
        loudest = jnp.sort(maps.mean(1), axis=-1)[:, -LOUDEST:].sum(-1)
        return logits[:, 0, 1] - logits[:, 0, 0], jnp.where(positive, loudest, 0).sum()

    def of_seed(params):
        found = {}
        for name in arms:
            scores, mass = of_arm(params[name])
            found[f"{name} auc"] = area_under_curve(np.asarray(scores), np.asarray(positive))
            found[f"{name} mass"] = mass / positive.sum()
        return found

    return each_seed(of_seed, params)


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """How often a positive's score is above a negative's; a tie counts half.

    Example:
        >>> area_under_curve(np.array([3.0, 1.0, 2.0]), np.array([True, False, True]))
        1.0
    """
    apart = scores[positive][:, None] - scores[~positive]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def _draw(run: Run, names: list[str], found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=2.8)
    for axis, field, text in (
        (axes[0, 0], "auc", "area under the curve"),
        (axes[0, 1], "mass", f"weight on {LOUDEST} of the instances"),
    ):
        values = [found[f"{name} {field}"] for name in names]
        axis.bar(names, [v.mean() for v in values], color=COLORS[0], alpha=0.5)
        for name, each in zip(names, values, strict=True):
            axis.plot([name] * len(each), each, "o", ms=3, color=COLORS[1])
        label(axis, "", text)
    axes[0, 0].set_ylim(0.5, 1)
    run.save_figure(
        figure, "bags", "Bags of instances with one branch of attention, several, and several that "
        "are kept from the loudest instances; dots are seeds.",
    )  # fmt: skip
