"""From a few responses of a voxel to its weights: in context, by ridge, and by the known prior."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.classifier_arms import each_seed, init_of
from experiments.functional import as_functions, optimizer
from experiments.plots import COLORS, label, log_scale, panels
from jattn.nn import Pool
from jattn.tasks.made_voxels import posterior_mean, shared_subspace, voxel
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2505.15813", "Meta-learning an in-context transformer model of visual cortex")
SCALED, PLAIN, RIDGE, BEST = "in context", "in context, no ln T", "ridge", "prior known"
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # times the noise's variance, in units of a weight's


class Hypernetwork(nnx.Module):
    """Pairs of features and responses, padded, to a voxel's weights."""

    def __init__(self, settings, log_length: bool, rngs: nnx.Rngs):
        self.pool = Pool(
            "in_context_weights", dim=settings.dim + 1, width=settings.width, heads=settings.heads,
            depth=settings.depth, hidden=2 * settings.width, log_length=log_length, rngs=rngs,
        )  # fmt: skip

    def __call__(self, features: jax.Array, responses: jax.Array, count: jax.Array) -> jax.Array:
        """Weights and, last, a bias, `[b, e + 1]`, of the first so many pairs of each voxel."""
        pairs = jnp.concatenate([features, responses[..., None]], -1)
        real = jnp.arange(pairs.shape[1]) < count[:, None]
        return self.pool(pairs, mask=real)[:, 0]


def voxels(run: Run, config) -> list[Claim]:
    """Trains with and without the logarithm of the length, and compares by number of pairs."""
    settings = config.voxels
    most = max(settings.lengths)
    try:
        basis = shared_subspace(jax.random.key(config.seed), dim=settings.dim, rank=settings.rank)
        make = lambda log: as_functions(lambda rngs: Hypernetwork(settings, log, rngs))
        models = {SCALED: make(True), PLAIN: make(False)}
    except ValueError as error:
        raise UsageError(f"voxels.{error}") from None

    def sample(key):
        of_count, of_voxel = jax.random.split(key)
        count = jax.random.randint(of_count, (), settings.least, settings.most + 1)
        return *voxel(of_voxel, basis, images=settings.most, noise=settings.noise), count

    def loss(params, batch):
        """The distance of directions, and the squared one, of all weights."""
        weights, *context = batch
        total = jnp.zeros(())
        for name, model in models.items():
            guess = model.module(params[name])(*context)
            size = jnp.linalg.norm(guess[:, :-1], axis=1) * jnp.linalg.norm(weights, axis=1)
            cosine = (guess[:, :-1] * weights).sum(1) / jnp.maximum(size, 1e-6)
            total = total + (1 - cosine).mean() + _error(guess, weights).mean()
        return total

    params = fit(
        init_of(models), loss, sample, optimizer(settings.learning_rate, settings.steps), run=run,
        name="voxels", seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    keys = jax.random.split(jax.random.key(config.seed + 1), settings.test)
    draw = jax.jit(jax.vmap(lambda k: voxel(k, basis, images=most, noise=settings.noise)))
    test = draw(keys)
    found = run.cached("voxels", lambda: _explained(models, params, test, basis, settings))
    for name, values in found.items():
        text = ", ".join(
            f"{n}: {v:.3f}" for n, v in zip(settings.lengths, values.mean(0), strict=True)
        )
        run.note(f"{name}: explained variance by pairs {text}")
    _draw(run, found, settings)
    return _claims(found, settings)


def _error(guess: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean squared error of the response to a new image, whose features are independent."""
    return ((guess[..., :-1] - weights) ** 2).sum(-1) + guess[..., -1] ** 2


def _explained(models, params, test, basis, settings) -> dict[str, np.ndarray]:
    """1 - error / variance of noiseless responses to new images, `[seeds, lengths]`.

    The penalty of ridge regression is the best one for each length, on these very voxels, so that
    nothing is lost by its choice.
    """
    weights = test[0]
    variance = (weights**2).sum(-1).mean()

    @jax.jit
    def learned(params, weights, features, responses, n):
        count = jnp.full(len(weights), n)
        return {
            name: 1 - _error(model.module(params[name])(features, responses, count), weights).mean()
            / variance
            for name, model in models.items()
        }  # fmt: skip

    @jax.jit
    def linear(prior, weights, features, responses, n):
        seen = jnp.arange(features.shape[1]) < n  # a response of zero to zeros says nothing
        guess = jax.vmap(lambda e, y: posterior_mean(e, y, prior, settings.noise))(
            features * seen[:, None], responses * seen
        )
        return 1 - ((guess - weights) ** 2).sum(-1).mean() / variance

    rows = [each_seed(lambda own, n=n: learned(own, *test, n), params) for n in settings.lengths]
    found = {name: np.stack([row[name] for row in rows], 1) for name in models}
    seeds = len(found[SCALED])
    identity, prior = jnp.eye(settings.dim) / settings.dim, basis @ basis.T
    for name, priors in ((RIDGE, [identity / p for p in PENALTIES]), (BEST, [prior])):
        best = [max(float(linear(c, *test, n)) for c in priors) for n in settings.lengths]
        found[name] = np.tile(best, (seeds, 1))
    return found


def _claims(found: Mapping[str, np.ndarray], settings) -> list[Claim]:
    at = {n: found[SCALED][:, i] for i, n in enumerate(settings.lengths)}
    few, usual, beyond = settings.compared
    row = {n: i for i, n in enumerate(settings.lengths)}
    before = "that was expected of it before training"
    over_ridge = at[few] - found[RIDGE][:, row[few]]
    grown = at[usual] - at[min(settings.lengths)]
    kept = at[beyond] - at[usual]
    without = found[PLAIN][:, row[beyond]] - found[PLAIN][:, row[usual]]
    room = (found[BEST] - found[SCALED]).min(1)
    return [
        PAPER.claim(
            "few", f"of {few} responses weights in context explain more than ridge regression "
            "with its best penalty: difference of R^2", 0.1, float(np.median(over_ridge)), ">=",
            because=before, seeds=over_ridge,
        ),
        PAPER.claim(
            "more", f"more examples help: R^2 of {usual} less that of {min(settings.lengths)}",
            0.2, float(np.median(grown)), ">=", because=before, seeds=grown,
        ),
        PAPER.claim(
            "beyond", f"with queries times ln T, {beyond} examples, more than in training, are not "
            f"worse than {usual}: difference of R^2", -0.02, float(np.median(kept)), ">=",
            because=before, seeds=kept,
        ),
        PAPER.claim(
            "ln-t", "that factor is what keeps it: its difference less that without", 0.0,
            float(np.median(kept - without)), ">=", because="0 is no difference",
            note=f"without ln T {np.median(without):+.4f}", seeds=kept - without,
        ),
        PAPER.claim(
            "bound", "nothing is better than the posterior mean of the known prior: least room",
            -0.01, float(np.median(room)), ">=", derived=True, seeds=room,
        ),
    ]  # fmt: skip


def _draw(run: Run, found: Mapping[str, np.ndarray], settings) -> None:
    figure, axes = panels(1, 1, width=4.4, height=3.2)
    for color, (name, values) in zip(COLORS, found.items(), strict=False):
        axes[0, 0].plot(settings.lengths, values.mean(0), "o-", ms=3, color=color, label=name)
        axes[0, 0].fill_between(
            settings.lengths, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0
        )
    axes[0, 0].axvline(settings.most, color="black", linestyle="--", linewidth=0.8)
    log_scale(axes[0, 0], "x")
    label(axes[0, 0], "examples in context (dashed: the most in training)", "R^2 on new images")
    run.save_figure(
        figure, "voxels", "What weights made in context explain of a voxel by the number of its "
        "responses seen, against ridge regression and the prior that made it.",
    )  # fmt: skip
