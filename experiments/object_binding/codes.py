"""Made patches whose identity has no label: which probes tell it, and in how many directions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.classifier_arms import each_seed
from experiments.object_binding import probes
from experiments.object_binding.probes import CLASS, LINEAR, PAPER, PROBES, QUADRATIC
from experiments.plots import COLORS, label, panels
from jattn.lens.object_binding import binding_subspace, swap_subspace, truncated
from jattn.tasks.instance_codes import Coded, coded_patches, directions
from jattn.training import Claim, Run, UsageError, fit


def codes(run: Run, config) -> list[Claim]:
    """Trains the probes, cuts the quadratic one's rank, and exchanges what it reads."""
    settings = config.codes
    try:
        axes = directions(
            jax.random.key(config.seed), dim=settings.dim, classes=settings.classes,
            rank=settings.rank,
        )  # fmt: skip
        sizes = dict(classes=settings.classes, each=settings.each, noise=settings.noise)
        sample = lambda key: coded_patches(key, axes, **sizes)
        jax.eval_shape(sample, jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"codes.{error}") from None

    params = fit(
        lambda key: probes.init(key, settings.dim, settings.classes),
        lambda params, batch: probes.loss(params, *batch), sample,
        optax.adam(settings.learning_rate), run=run, name="codes", seeds=config.seeds,
        steps=settings.steps, batch_size=settings.batch_size, seed=config.seed,
        log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    test = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), settings.test))
    found = run.cached("codes", lambda: each_seed(lambda own: _measured(own, test), params))
    _draw(run, found, settings.rank)
    for name in PROBES:
        run.note(f"{name}: balanced accuracy {found[name].mean():.3f}")
    return _claims(found, settings.rank)


@jax.jit
def _measured(params, test: Coded) -> dict[str, jax.Array]:
    """Accuracies of the probes, of ranks of the quadratic one, and after exchanges by rank."""
    of = lambda params, x: probes.accuracies(params, x, test.objects)
    found = of(params, test.patches)
    ranks = range(1, len(params[QUADRATIC]) + 1)
    cut = [of({**params, QUADRATIC: truncated(params[QUADRATIC], r)}, test.patches)[QUADRATIC]
           for r in ranks]  # fmt: skip
    order = jax.vmap(lambda key: jax.random.permutation(key, test.patches.shape[1]))(
        jax.random.split(jax.random.key(0), len(test.patches))
    )
    swapped = []
    for r in ranks:
        basis = binding_subspace(params[QUADRATIC], r)
        x = jax.vmap(swap_subspace, (0, None, 0))(test.patches, basis, order)
        swapped.append(of(params, x)[QUADRATIC])
    return {**found, "cut": jnp.stack(cut), "swapped": jnp.stack(swapped)}


def _claims(found: dict[str, np.ndarray], rank: int) -> list[Claim]:
    before = "that was expected of it before training"
    over_linear = found[QUADRATIC] - found[LINEAR]
    over_class = found[QUADRATIC] - found[CLASS]
    kept = (found["cut"][:, rank - 1] - found[LINEAR]) / over_linear
    left = found["swapped"][:, rank - 1] - found[CLASS]
    return [
        PAPER.claim(
            "products", "identity is read by products of the two patches and not by their sum: "
            "quadratic above linear", 0.15, float(np.median(over_linear)), ">=", because=before,
            note=", ".join(f"{n} {found[n].mean():.3f}" for n in PROBES), seeds=over_linear,
        ),
        PAPER.claim(
            "not-class", "it is more than what the patch shows: quadratic above the class's",
            0.05, float(np.median(over_class)), ">=", because=before, seeds=over_class,
        ),
        PAPER.claim(
            "low-rank", f"it lies in the {rank} directions of the codes: share of the gain over "
            "the linear probe that as many eigenvectors keep", 0.95, float(np.median(kept)), ">=",
            because=before, seeds=kept,
        ),
        PAPER.claim(
            "exchanged", f"patches that exchange {rank} coordinates are told apart by their class "
            "at most: accuracy above the class's", 0.02, float(np.median(left)), "<=",
            because=before, seeds=left,
        ),
        PAPER.claim(
            "sum", "a linear probe is a guess: balanced accuracy", 0.5,
            float(np.median(found[LINEAR])), "~=", 0.02, derived=True, seeds=found[LINEAR],
        ),
    ]  # fmt: skip


def _draw(run: Run, found: dict[str, np.ndarray], rank: int) -> None:
    figure, axes = panels(1, 2, width=3.6)
    axes[0, 0].bar(PROBES, [found[n].mean() for n in PROBES], color=COLORS[0], alpha=0.6)
    for x, name in enumerate(PROBES):
        axes[0, 0].plot([x] * len(found[name]), found[name], "o", ms=3, color=COLORS[1])
    axes[0, 0].set_ylim(0.4, 1)
    label(axes[0, 0], "probe", "balanced accuracy")
    ranks = np.arange(1, found["cut"].shape[1] + 1)
    for color, key, name in ((0, "cut", "these alone"), (1, "swapped", "these exchanged")):
        axes[0, 1].plot(ranks, found[key].mean(0), "-", color=COLORS[color], label=name)
    axes[0, 1].axvline(rank, color="black", linestyle="--", linewidth=0.8)
    axes[0, 1].axhline(found[CLASS].mean(), color=COLORS[6], linewidth=0.8, label="by class")
    label(axes[0, 1], "eigenvectors (dashed: directions of the codes)", "balanced accuracy")
    run.save_figure(
        figure, "codes", "Which probes tell that two patches show one object, and what the "
        "quadratic one tells by its leading eigenvectors, or with them exchanged between patches.",
    )  # fmt: skip
