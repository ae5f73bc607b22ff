"""Coarse teaching, then fine, or of colour alone; and what is asked after each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.agnosia import figures
from experiments.agnosia.items import OPTION, OPTIONS, Items, held_out, items
from experiments.agnosia.reader import loss_of, model_of, sampler, scorer
from experiments.functional import optimizer
from jattn.systems.agnosia import Rates, agnosia_rates, predictions
from jattn.tasks import scene_items as si
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2309.04041", "Agnosia in multimodal large language models")
COARSE, FINE, COLOUR = "coarse", "fine", "colour only"
STAGES = (COARSE, FINE, COLOUR)
UNTAUGHT = (si.COLOUR, si.SHAPE, si.SIZE, si.POSITION, si.RELATION)  # of the coarse teaching
ATTRIBUTES = (si.EXISTENCE, si.COLOUR, si.SHAPE, si.COUNT, si.SIZE)
UNSEEN = (si.EXISTENCE, si.COLOUR, si.SHAPE, si.SIZE, si.POSITION)  # asked of pairs held out
SEEN_ITEMS, HELD_OUT, BLIND = "seen", "held out", "blind"


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if config.dim % config.heads:
        raise UsageError(f"heads: expected a divisor of dim={config.dim}, got {config.heads}")
    if not 1 <= config.held_out <= 4:
        raise UsageError(f"held_out: expected 1 to 4 pairs, got {config.held_out}")
    if config.scenes < 200:
        raise UsageError(f"scenes: expected at least 200, got {config.scenes}")
    if config.test_size < 8:
        raise UsageError(f"test_size: expected at least 8, got {config.test_size}")


def taught(run: Run, config, seed: int, material: dict[str, Items]) -> dict[str, Any]:
    """Parameters after each stage of one seed."""
    model = model_of(config)

    def teach(stage: str, steps: int, start: Any = None) -> Any:
        begin = model.init if start is None else lambda key: start
        result = fit(
            begin, loss_of(model), sampler(material[stage]), optimizer(config.learning_rate, steps),
            run=run, name=f"{stage.replace(' ', '_')}_{seed}", seeds=1, steps=steps,
            batch_size=config.batch_size, seed=config.seed + seed,
            log_every=max(steps // 20, 1),
        )  # fmt: skip
        return jax.tree.map(lambda leaf: leaf[0], result.params)

    coarse = teach(COARSE, config.coarse_steps)
    return {
        COARSE: coarse,
        FINE: teach(FINE, config.fine_steps, coarse),
        COLOUR: teach(COLOUR, config.colour_steps, coarse),
    }


def material_of(config, key: jax.Array) -> tuple[dict[str, Items], dict[str, Items]]:
    """What is taught in each stage, and what is asked: other scenes, and of pairs held out."""
    seen = held_out(config.held_out)
    keys = jax.random.split(key, 8)
    scenes = si.draw_scenes(keys[0], config.scenes, allowed=jnp.asarray(seen))
    test = si.draw_scenes(keys[1], config.scenes, allowed=jnp.asarray(seen))
    other = si.draw_scenes(keys[2], config.scenes)
    of = lambda k, aspects, **options: items(
        keys[k], scenes, config.questions, aspects=aspects, **options
    )
    everything = tuple(range(len(si.ASPECTS)))
    teaching = {
        COARSE: of(3, (si.EXISTENCE, si.COUNT), coarse=True),
        FINE: of(4, everything),
        COLOUR: of(5, (si.COLOUR,)),
    }
    asking = {
        # What asks for a pair that is held out can be answered without looking.
        SEEN_ITEMS: items(keys[6], test, config.test_size, only=seen),
        HELD_OUT: items(keys[7], other, config.test_size, aspects=UNSEEN, only=~seen, there=True),
        COARSE: items(
            keys[6], test, config.test_size, aspects=(si.EXISTENCE, si.COUNT), coarse=True
        ),
    }
    return teaching, asking


def rates_of(found: np.ndarray, asked: Items) -> Rates:
    """Rates of each aspect that is asked, in the order of the rows."""
    aspects, count, _ = found.shape
    rows = np.asarray(asked.rows)
    options = OPTIONS[rows[:, 0, 1]]
    guess = predictions(jnp.asarray(found), jnp.asarray(options)[:, None].repeat(count, 1))
    right = np.asarray(guess) == rows[..., OPTION]
    aspect = np.arange(aspects).repeat(count)
    return agnosia_rates(jnp.asarray(aspect), jnp.asarray(right.ravel()), jnp.asarray(options))


def measured(run: Run, config) -> dict[str, np.ndarray]:
    """Agnosia by seed, stage and aspect; of pairs held out, without images, and of coarse items."""
    scores = scorer(model_of(config))
    found: dict[str, list] = {}

    def note(name: str, value: Any) -> None:
        found.setdefault(name, []).append(np.asarray(value))

    for seed in range(config.seeds):
        material, asking = material_of(config, jax.random.key(config.seed + seed))
        params = taught(run, config, seed, material)
        for stage in STAGES:
            rates = rates_of(scores(params[stage], asking[SEEN_ITEMS]), asking[SEEN_ITEMS])
            note(f"{stage} agnosia", rates.agnosia)
            note(f"{stage} low", rates.wilson_low)
            note(f"{stage} high", rates.wilson_high)
            note(f"{stage} q", rates.q_value)
        unseen = asking[HELD_OUT]
        note(HELD_OUT, rates_of(scores(params[FINE], unseen), unseen).agnosia)
        shown = asking[SEEN_ITEMS]
        blind = scores(params[FINE], shown, blind=True)
        note(BLIND, rates_of(blind, shown).agnosia)
        coarse = scores(params[COARSE], asking[COARSE])
        note("coarse items", rates_of(coarse, asking[COARSE]).agnosia)
        fine = scores(params[FINE], shown)
        yes = fine[si.EXISTENCE][:, :2].argmax(1) == 1
        truth = np.asarray(shown.rows[si.EXISTENCE, :, OPTION]) == 1
        note("yes", [(yes & truth).sum() / max(yes.sum(), 1), (yes & truth).sum() / truth.sum()])
        if not seed:
            figures.examples(run, shown, fine)
    table = {name: np.stack(values) for name, values in found.items()}
    figures.rates(run, table, STAGES)
    return table


def claims_of(config, found: dict[str, np.ndarray]) -> list[Claim]:
    """Claims about agnosia, the mean over seeds."""
    of = lambda stage, aspects: found[f"{stage} agnosia"][:, list(aspects)]
    macro = {stage: found[f"{stage} agnosia"].mean(1) for stage in STAGES}
    unseen = dict(zip(UNSEEN, found[HELD_OUT].T, strict=True))
    fine = found[f"{FINE} agnosia"]
    untaught = np.abs(of(COARSE, UNTAUGHT) - 1).max(1)
    order = np.minimum(
        fine[:, si.POSITION] - of(FINE, ATTRIBUTES).mean(1),
        fine[:, si.RELATION] - fine[:, si.POSITION],
    )
    binding = np.min([unseen[a] for a in (si.EXISTENCE, si.COLOUR, si.SHAPE)], axis=0)
    spared = np.max([unseen[a] - fine[:, a] for a in (si.SIZE, si.POSITION)], axis=0)
    precision, recall = found["yes"].mean(0)
    named = lambda row: ", ".join(f"{n} {x:.2f}" for n, x in zip(si.ASPECTS, row, strict=True))
    earlier = "it is what an independent program gave, twice, with room"
    claim = PAPER.claim
    return [
        claim(
            "coarse-untaught", "taught the existence of shapes and the number of objects, a model "
            "guesses colour, shape, size, position and relation: largest distance of agnosia from "
            "1", 0.15, float(untaught.mean()), "<=", derived=True, seeds=untaught,
            note=named(found[f"{COARSE} agnosia"].mean(0)),
        ),
        claim(
            "coarse-count", "and counts: agnosia", 0.1, float(of(COARSE, (si.COUNT,)).mean()), "<=",
            because=earlier, seeds=of(COARSE, (si.COUNT,))[:, 0],
            note=f"of coarse items of existence {found['coarse items'][:, 0].mean():.2f}",
        ),
        claim(
            "fine-attributes", "taught all aspects, it sees existence, colour, shape, count and "
            "size: largest agnosia", 0.3, float(of(FINE, ATTRIBUTES).max(1).mean()), "<=",
            because=earlier, seeds=of(FINE, ATTRIBUTES).max(1),
            note=f"{named(fine.mean(0))}; yes: precision {precision:.2f}, recall {recall:.2f}",
        ),
        claim(
            "tuning-helps", "fine-grained tuning lowers agnosia: mean over aspects, by how much",
            0.4, float((macro[COARSE] - macro[FINE]).mean()), ">=", because=earlier,
            seeds=macro[COARSE] - macro[FINE],
            note=f"from {macro[COARSE].mean():.2f} to {macro[FINE].mean():.2f}",
        ),
        claim(
            "uneven", "aspects differ: attributes before position before relation, the smaller of "
            "both steps", 0.0, float(order.mean()), ">", seeds=order, where="the abstract",
        ),
        claim(
            "blind", "without the image it guesses: mean agnosia", 1.0,
            float(found[BLIND].mean()), "~=", 0.05, derived=True, seeds=found[BLIND].mean(1),
            note="one pair a shape is held out, which leaves a prior on colour and shape: "
            + named(found[BLIND].mean(0)),
        ),
        claim(
            "colour-only", "taught colour alone, it sees colour", 0.1,
            float(of(COLOUR, (si.COLOUR,)).mean()), "<=", because=earlier,
            seeds=of(COLOUR, (si.COLOUR,))[:, 0],
        ),
        claim(
            "colour-forgets", "and can no longer count: agnosia", 0.7,
            float(of(COLOUR, (si.COUNT,)).mean()), ">=", because=earlier,
            seeds=of(COLOUR, (si.COUNT,))[:, 0], note=named(found[f"{COLOUR} agnosia"].mean(0)),
        ),
        claim(
            "binding", "a pair of shape and colour that it was never shown is worse than guessed: "
            "smallest agnosia of existence, colour and shape", 1.0, float(binding.mean()), ">",
            derived=True, seeds=binding,
            note=", ".join(f"{si.ASPECTS[a]} {x.mean():.2f}" for a, x in unseen.items()),
        ),
        claim(
            "spared", "but size and position of the same objects are seen as well as others': "
            "largest difference", 0.15, float(spared.mean()), "<=", because=earlier, seeds=spared,
        ),
    ]  # fmt: skip
