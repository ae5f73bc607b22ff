"""Fine-tuning on colors by low-rank adapters: which heads the circuit gains, and what they do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import (
    LanguageModel,
    batches_of,
    language_model,
    last_of,
    minimizer,
    program,
    random_heads,
)
from experiments.language_model_circuits.prompts import (
    Prompts,
    attributed,
    coloured_objects,
    difference,
    right,
)
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.methods.circuits import circuit, emergent
from jattn.nn import Llama
from jattn.nn.lora import lora_init, lora_merge
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2509.25758", "Thinking sparks: emergent heads in reasoning models")
TARGETS = ("query", "key", "value", "output")
SCALED = 1.3


def tuning(run: Run, config) -> list[Claim]:
    """Trains adapters, takes circuits before, on the way and after, and ablates what is new."""
    language = language_model(config.model)
    found = run.cached("tuning", lambda: measured(run, language, config))
    _draw(run, found)
    new = found["new"]
    count = int(new[-1].sum())
    halfway = new[(len(new) - 1) // 2]
    fall = found["after"][1] - found["without"][1]
    random = found["after"][1] - found["random"][:, 1]
    heads = new.shape[2]
    shown = ", ".join(str(divmod(int(i), heads)) for i in np.flatnonzero(new[-1])[:8])
    return [
        PAPER.claim(
            "tuned",
            "Fine-tuning works: gain in accuracy on new prompts.",
            0.1,
            float(found["after"][0] - found["before"][0]),
            ">",
            because="a tenth is clearly more",
            note=f"{found['before'][0]:.2f} to {found['after'][0]:.2f}; loss "
            f"{found['losses'][:4].mean():.2f} to {found['losses'][-4:].mean():.2f}",
        ),
        PAPER.claim(
            "emergent",
            "Heads enter the circuit: number that were not in it before.",
            1,
            count,
            ">=",
            because="one is some",
            note=f"of {config.circuit}: {shown}",
        ),
        PAPER.claim(
            "emergent-early",
            "At least half of them are there halfway through training: share.",
            0.5,
            float((halfway & new[-1]).sum() / max(count, 1)),
            ">=",
            where="half by step 100 there",
        ),
        PAPER.claim(
            "emergent-needed",
            "The tuned model needs them more than random heads: fall of its logit difference "
            "without them, over the mean of as many random ones.",
            1.0,
            float(fall / max(random.mean(), 1e-6)),
            ">",
            because="1 is as much as random ones",
            note=f"difference {found['after'][1]:.2f}, without {found['without'][1]:.2f}, random "
            + ", ".join(f"{x:.2f}" for x in found["random"][:, 1]),
        ),
        PAPER.claim(
            "emergent-scaled",
            f"Scaled by {SCALED:g} they do better still: change of the logit difference.",
            0.0,
            float(found["scaled"][1] - found["after"][1]),
            ">",
            because="0 is no change; 56 to 60 points of accuracy in the paper",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Accuracy and logit difference before, after and under edits; heads new at checkpoints."""
    model, tokenizer = language
    layers, heads = model.config.layers, model.config.heads
    settings, rng = config.tuning, np.random.default_rng(config.seed + 2)
    train = coloured_objects(tokenizer, rng, settings.train)
    test = coloured_objects(tokenizer, rng, config.repair.test)
    scored = coloured_objects(tokenizer, rng, config.prompts)
    shares = jnp.zeros(config.steps)
    size = min(config.circuit, layers * heads)
    none = jnp.zeros((layers, heads))
    adapters = lora_init(
        jax.random.key(config.seed), model.arrays()["layers"], rank=settings.rank, targets=TARGETS
    )
    learn = minimizer(_loss, optax.adam(settings.learning_rate))
    steps = settings.steps // settings.checkpoints
    with run.progress("tuning", 3 + 2 * settings.checkpoints + config.draws) as advance:
        before = circuit(attributed(model, scored, shares), size)
        first = _tested(model, adapters, test, none)
        advance(2)
        new, losses = [], []
        for _ in range(settings.checkpoints):
            batches = batches_of(rng, train, steps, settings.batch_size)
            adapters, found = learn(model, adapters, 0.0, batches)
            losses.append(np.asarray(found))
            advance(1)
            after = circuit(attributed(_tuned(model, adapters), scored, shares), size)
            new.append(np.asarray(emergent(after, before)))
            advance(1)
        there = jnp.asarray(new[-1], jnp.float32)
        last, without, scaled = (
            _tested(model, adapters, test, scale) for scale in (none, -there, (SCALED - 1) * there)
        )
        advance(1)
        random = []
        for _ in range(config.draws):
            drawn = random_heads(rng, layers, heads, int(there.sum()))
            random.append(np.asarray(_tested(model, adapters, test, -1.0 * drawn)))
            advance(1)
    return dict(
        before=np.asarray(first),
        after=np.asarray(last),
        without=np.asarray(without),
        scaled=np.asarray(scaled),
        random=np.stack(random),
        new=np.stack(new),
        losses=np.concatenate(losses),
    )


def _tuned(model: Llama, adapters) -> Llama:
    """The model with its adapters merged."""
    weights = model.arrays()
    layers = lora_merge(weights["layers"], adapters)
    return Llama(model.config, weights=weights | {"layers": layers})


def _loss(model: Llama, adapters, given, batch: Prompts):
    """-log p of the color that is asked for."""
    logits = lens.run(_tuned(model, adapters), batch.clean, at=last_of(batch.clean))[0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.good).mean()


@program
def _tested(model: Llama, adapters, prompts: Prompts, scale):
    """Accuracy and logit difference, with heads scaled by 1 + scale."""
    edit = lens.HeadAffine(scale[..., None])
    logits = lens.run(_tuned(model, adapters), prompts.clean, edits=[edit])[0]
    return jnp.stack([right(logits, prompts).mean(), difference(logits, prompts)])


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.4)
    axes[0, 0].plot(found["losses"], color=COLORS[0])
    label(axes[0, 0], "step", "-log p of the color, nats")
    axes[0, 1].imshow(found["new"].sum(0), cmap="Blues", aspect="auto", origin="lower")
    label(axes[0, 1], "head", "layer", "new in the circuit")
    run.save_figure(
        figure,
        "emergent_heads",
        "Left: the loss in fine-tuning. Right: heads of the circuit that were not in it before, "
        "darker where they are in it at more checkpoints.",
    )
