"""Whose attribute is whose: the mean of tokens, one query, several."""

import jax
import numpy as np
import optax

from experiments.attentive_probing.probes import MEAN, PAPER, QUERIES, maps_of, probes
from experiments.classifier_arms import accuracies, each_seed, init_of, loss_of
from experiments.plots import COLORS, label, panels
from jattn.tasks.flagged_tokens import CLASSES, flagged_tokens
from jattn.training import Claim, Run, fit

ONE, TWO, MANY = (f"{QUERIES}{count}" for count in (1, 2, 8))


def attributes(run: Run, config) -> list[Claim]:
    """Trains probes on raw tokens, fresh ones at every step."""
    settings = config.attributes
    models = probes(settings.pools, dim=settings.dim, classes=CLASSES)
    sample = lambda key: flagged_tokens(key, tokens=settings.tokens, dim=settings.dim)
    params = fit(
        init_of(models), loss_of(models), sample, optax.adam(settings.learning_rate), run=run,
        name="attributes", seeds=config.seeds, steps=settings.steps,
        batch_size=settings.batch_size, seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    tokens, classes, places = jax.vmap(sample)(
        jax.random.split(jax.random.key(config.seed + 1), settings.test)
    )
    found = run.cached("attributes", lambda: accuracies(models, params, tokens, classes))
    for name, accuracy in found.items():
        run.note(f"{name}: {accuracy.mean():.4f}")

    def looked():
        @jax.jit
        def mass(params, tokens, places):
            maps = maps_of(models[MANY].module(params).pool.arrays()["queries"], tokens)
            return {"mass": jax.vmap(lambda m, p: m[:, p])(maps, places).mean(0)}

        return each_seed(lambda own: mass(own, tokens, places), params[MANY])

    _draw(run, found, run.cached("looked", looked)["mass"] if MANY in found else None)
    return _claims(found)


def _claims(found: dict[str, np.ndarray]) -> list[Claim]:
    claims = []
    if ONE in found and MANY in found:
        gain = found[MANY] - found[ONE]
        claims.append(
            PAPER.claim(
                "several-queries", "8 queries tell whose attribute is whose better than one: "
                "difference of accuracies", 0.15, float(np.median(gain)), ">=",
                because="0.20 was measured before, by another program",
                note=f"{found[MANY].mean():.4f} against {found[ONE].mean():.4f}", seeds=gain,
            )
        )  # fmt: skip
    if ONE in found and MEAN in found:
        gain = found[ONE] - found[MEAN]
        claims.append(
            PAPER.claim(
                "one-query", "one query is no worse than the mean: difference", 0.0,
                float(np.median(gain)), ">=", because="0 is no difference",
                note=f"{found[MEAN].mean():.4f} for the mean", seeds=gain,
            )
        )  # fmt: skip
    if TWO in found:
        claims.append(
            PAPER.claim(
                "two-queries", "two queries are enough: accuracy", 0.95,
                float(np.median(found[TWO])), ">=", because="two flags need two maps, and no more",
                seeds=found[TWO],
            )
        )  # fmt: skip
    return claims


def _draw(run: Run, found: dict[str, np.ndarray], mass: np.ndarray | None) -> None:
    figure, axes = panels(1, 2, width=3.6, height=2.8)
    rows = np.arange(len(found))
    axes[0, 0].barh(rows, [a.mean() for a in found.values()], color=COLORS[0], alpha=0.5)
    for row, accuracy in enumerate(found.values()):
        axes[0, 0].plot(accuracy, [row] * len(accuracy), "o", ms=3, color=COLORS[1])
    axes[0, 0].set_yticks(rows, [n.replace(QUERIES, "queries ") for n in found], fontsize=6)
    axes[0, 0].axvline(1 / CLASSES, color="black", linestyle="--", linewidth=0.8, label="a guess")
    axes[0, 0].invert_yaxis()
    label(axes[0, 0], "accuracy", "")
    if mass is not None:
        for flag, name in enumerate(("flag a", "flag b")):
            places = np.arange(mass.shape[1]) + 0.4 * flag
            axes[0, 1].bar(places, mass[0, :, flag], 0.4, color=COLORS[flag], label=name)
        label(axes[0, 1], "query", "weight on the token", "seed 0, 8 queries")
    else:
        axes[0, 1].set_axis_off()
    run.save_figure(
        figure, "attributes", "Accuracy where two tokens' attributes have to be told apart, and "
        "which flag each of 8 queries looks at.",
    )  # fmt: skip
