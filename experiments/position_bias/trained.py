"""Networks trained to classify in context, and the slots that they answer from (B1 to B4, B6)."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.margins import standard_error
from experiments.plots import COLORS, label, panels
from experiments.position_bias import networks
from experiments.position_bias.networks import PAPER, Spec
from jattn.tasks.novel_classes import (
    Classes,
    Classified,
    make_classes,
    novel_classes,
    seen_classes,
)
from jattn.training import Claim, Run, fit

TEST_SEED = 2**20  # far from the training seeds
MEASURED = "an independent run of one seed has about twice as much"


def _pairs_of_slots(config) -> dict[str, tuple[int, int]]:
    middle = config.pairs // 2
    return {
        "first-last": (0, config.pairs - 1),
        "first-middle": (0, middle),
        "middle-last": (middle, config.pairs - 1),
    }


def train(run: Run, config, spec: Spec, asked: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Trains a network; answers from the first less from the second slot, `[seeds]` by pair.

    Args:
        run, config: as for a study.
        spec: the network.
        asked: slots that training asks for; all if empty.

    Returns:
        Gaps by names of pairs, `accuracy` of the answers of either `[seeds, pairs]`, and `slots`:
        how often the answer is each slot's, where one slot alone holds the item `[seeds, n]`.
    """
    name = f"{spec.name}{'_ends' if asked else ''}"
    known = _classes(config)
    sizes: dict[str, Any] = dict(pairs=config.pairs, copies=config.copies, noise=config.noise)
    params = fit(
        lambda key: networks.init(key, config, spec),
        lambda params, batch: networks.loss(params, config, spec, batch),
        seen_classes(known, asked=asked, **sizes),
        optax.adamw(config.learning_rate, weight_decay=config.weight_decay),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def tested():
        batches, pairs = test_sequences(config), _pairs_of_slots(config)

        @jax.jit
        @jax.vmap
        def answers(params):
            best = lambda x: networks.logits(params, config, spec, x).argmax(-1)
            return lax.map(best, batches.x)

        # Answers and labels of each seed and pair of slots.
        found = np.asarray(answers(params))
        slots = batches.labels[np.arange(len(pairs))[:, None], :, np.array(list(pairs.values()))]
        right = np.mean(found[:, : len(pairs), None] == np.asarray(slots), axis=-1)
        own = np.mean(found[:, len(pairs) :] == np.asarray(batches.answer[len(pairs) :]), axis=-1)
        return dict(zip(pairs, right.transpose(1, 0, 2), strict=True)) | {"slots": own}

    return run.cached(name, tested)


def _classes(config) -> Classes:
    return make_classes(
        jax.random.key(config.seed), classes=config.classes, labels=config.labels, dim=config.dim
    )


def test_sequences(config) -> Classified:
    """Sequences of new classes, `[tests, n, ...]`: of each pair of slots, then of each slot."""
    keys = jax.random.split(jax.random.key(TEST_SEED), config.test_size)
    asked = [*_pairs_of_slots(config).values(), *((slot, slot) for slot in range(config.pairs))]
    draw = [novel_classes(_classes(config), pairs=config.pairs, twice=twice) for twice in asked]
    of_all = [jax.jit(jax.vmap(one))(keys) for one in draw]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *of_all)


def _gap(row: dict[str, np.ndarray], pair: str) -> np.ndarray:
    return row[pair][:, 0] - row[pair][:, 1]


def trained(run: Run, config) -> list[Claim]:
    """Networks of each mask, asked for any slot in training."""
    least = config.layers[0]
    specs = [Spec(mask, least) for mask in config.masks]
    specs += [Spec("causal", n) for n in config.layers[1:] if "causal" in config.masks]
    rows = {spec: train(run, config, spec) for spec in specs}
    _draw(run, config, rows)
    claims = []

    def claim(id, statement, spec, pair, predicted, relation, sign=1.0, because=MEASURED):
        gaps = _gap(rows[spec], pair)
        shown = ", ".join(f"{p} {_gap(rows[spec], p).mean():+.3f}" for p in _pairs_of_slots(config))
        values = np.abs(gaps) if sign == 0 else gaps
        claims.append(
            PAPER.claim(id, f"{statement}: gap {pair}, {spec.layers} layers", predicted,
                        float(np.median(values)), relation, because=because, seeds=values,
                        note=shown)
        )  # fmt: skip

    for spec in specs[: len(config.masks)]:
        if spec.mask in ("causal", "prefix", "rotary", "window"):
            number = "B1" if spec.mask == "causal" else f"B1-{spec.mask}"
            claim(number, f"mask {spec.mask}: the first slot is favoured", spec, "first-last",
                  0.08 if spec.mask == "causal" else 0.0, ">",
                  because=MEASURED if spec.mask == "causal" else "no gap is no bias")  # fmt: skip
        if spec.mask == "causal":
            claim(
                "B1-middle", "mask causal: and before the middle", spec, "first-middle", 0.05, ">"
            )
        if spec.mask == "none":
            for pair in _pairs_of_slots(config):
                claim(f"B2-{pair}", "no mask: no slot is favoured, size of the gap", spec, pair,
                      0.05, "<", 0, "it is a third of the causal mask's")  # fmt: skip
        if spec.mask == "decay":
            claim("B3", f"decay by {config.gamma}: the last slot is favoured", spec, "first-last",
                  -0.08, "<")  # fmt: skip
    deeper = [spec for spec in specs if spec.mask == "causal"]
    for one, other in itertools.pairwise(deeper):
        step = _gap(rows[other], "first-last") - _gap(rows[one], "first-last")
        claims.append(
            PAPER.claim(f"B4-{other.layers}", "causal bias grows with depth: gap first-last, "
                        f"{other.layers} layers less {one.layers}", -0.03, float(np.median(step)),
                        ">=", because="a hundredth and a half is the error of a gap", seeds=step,
                        note=f"accuracy of the best slot {rows[other]['slots'].max(1).mean():.2f}")
        )  # fmt: skip
    return claims


def ends(run: Run, config) -> list[Claim]:
    """Networks whose training asks for the first and the last slot: the middle is lost."""
    claims, rows = [], {}
    for mask in config.ends:
        spec = Spec(mask, config.layers[0])
        row = rows[spec] = train(run, config, spec, asked=(0, -1))
        slots = row["slots"]
        outer = np.minimum(slots[:, 0], slots[:, -1])
        inner = slots[:, 1:-1].mean(1)
        claims.append(
            PAPER.claim(f"B6-{mask}", f"trained on answers in the end slots, mask {mask}: "
                        "lost in the middle: recall of the worse end less the mean between",
                        0.0, float(np.median(outer - inner)), ">", seeds=outer - inner,
                        note="by slot " + " ".join(f"{v:.2f}" for v in slots.mean(0)))
        )  # fmt: skip
    _draw_slots(run, rows)
    return claims


def _draw(run: Run, config, rows: dict[Spec, dict[str, np.ndarray]]) -> None:
    names = list(_pairs_of_slots(config))
    figure, axes = panels(1, 1, width=5.0, height=3.0)
    for number, (spec, row) in enumerate(rows.items()):
        gaps = np.stack([_gap(row, pair) for pair in names])
        at = np.arange(len(names)) + 0.8 * (number / max(len(rows) - 1, 1) - 0.5)
        error = [standard_error(values) for values in gaps]
        color = COLORS[number % len(COLORS)]
        axes[0, 0].errorbar(at, gaps.mean(1), error, fmt="o", color=color,
                            label=f"{spec.mask}, {spec.layers} layers")  # fmt: skip
    axes[0, 0].axhline(0, color="black", linewidth=0.6)
    axes[0, 0].set_xticks(range(len(names)), names)
    label(axes[0, 0], "", "answers from the first less the second")
    run.save_figure(figure, "gaps", "New classes, the item asked for in two slots with other "
                    "labels: which one the network answers from. Means and standard errors over "
                    "seeds.")  # fmt: skip


def _draw_slots(run: Run, rows: dict[Spec, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 1, width=4.0, height=3.0)
    for color, (spec, row) in zip(COLORS, rows.items(), strict=False):
        slots = np.arange(1, row["slots"].shape[1] + 1)
        axes[0, 0].plot(slots, row["slots"].mean(0), color=color, marker="o", ms=3, label=spec.mask)
        axes[0, 0].plot(slots, row["slots"].T, color=color, linewidth=0.5, alpha=0.5)
    label(axes[0, 0], "slot of the item", "right answers")
    run.save_figure(figure, "ends", "Trained on answers in the first and last slot, tested on all: "
                    "right answers by the item's slot. Thin lines are seeds.")  # fmt: skip
