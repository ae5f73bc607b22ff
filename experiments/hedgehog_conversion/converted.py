"""A softmax decoder that recalls, turned into a linear one."""

from typing import Any

import jax
import numpy as np
import optax

from experiments.functional import decoder, recall_accuracy, recall_loss
from experiments.hedgehog_conversion import figures
from experiments.hedgehog_conversion.convert import (
    CURVE,
    STUDENTS,
    TEACHER,
    Setting,
    all_converted,
    watching,
)
from experiments.hedgehog_conversion.features import PAPER
from experiments.margins import bar
from jattn.nn import Transformer, TransformerConfig
from jattn.tasks.associative_recall import associative_recall
from jattn.training import Claim, Run, UsageError, fit


def settings(config, mechanism: str) -> TransformerConfig:
    """The decoder with a mechanism; teacher and students share all else, learned places too."""
    return TransformerConfig(
        vocab_size=config.vocabulary,
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=mechanism,
        mlp_ratio=config.mlp_ratio,
        short_convolution=config.short_convolution,
        max_length=config.length,
        tie_embeddings=False,
    )


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    try:
        associative_recall(config.vocabulary, config.length, config.pairs)
        settings(config, "hedgehog")
    except ValueError as error:
        raise UsageError(str(error)) from None


def queries_and_keys(module: Transformer, tokens: jax.Array) -> list[Any]:
    """Queries and keys `[b, t, h, d]` of every layer, as attention compares them."""
    found = []
    module(tokens, edits=dict.fromkeys(range(len(module.blocks)), watching(found)))
    return found


def conversion(run: Run, config) -> list[Claim]:
    """Trains teachers, converts them, and compares."""
    make = lambda mechanism: decoder(settings(config, mechanism))
    sample = associative_recall(config.vocabulary, config.length, config.pairs)
    test = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), config.test_size))
    plan = config.teacher
    rate = optax.warmup_cosine_decay_schedule(
        0.0, plan.learning_rate, max(1, plan.steps // 8), plan.steps
    )
    teacher = make(TEACHER)
    taught = fit(
        teacher.init,
        lambda params, batch: recall_loss(teacher, params, batch),
        sample,
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.1)),
        run=run,
        name="teacher",
        seeds=config.seeds,
        steps=plan.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(1, plan.steps // CURVE),
    )
    setting = Setting(
        make,
        lambda key: jax.vmap(sample)(jax.random.split(key, config.batch_size)),
        lambda *given: recall_loss(*given)[0],
        lambda model, params: recall_accuracy(model, params, test),
        lambda module, batch: queries_and_keys(module, batch.tokens),
        jax.tree.map(lambda x: x[:32], test),
        causal=True,
    )
    found = all_converted(run, "conversion", setting, taught.params, config.seed, config)
    figures.conversion(run, config, found, list(STUDENTS))
    figures.learned_weights(run, found, list(STUDENTS))
    return _claims(config, found)


def _claims(config, found: dict[str, np.ndarray]) -> list[Claim]:
    kl = {name: float(found[f"divergence_{name}"].mean()) for name in STUDENTS}
    before = {name: float(found[f"accuracy_{name}"][:, 0].mean()) for name in STUDENTS}
    after = {name: float(found[f"accuracy_{name}"][:, -1].mean()) for name in STUDENTS}
    teacher = float(found["teacher"].mean())
    seeds = f"{config.seeds} seeds; teacher {teacher:.3f}"
    share = lambda values: values / found["teacher"]  # of each seed's own teacher
    swapped = share(found["accuracy_distilled"][:, 0])
    tuned = share(found["accuracy_distilled"][:, -1])
    guess = 1 / config.pairs
    rivals = found[f"accuracy_{max(('undistilled', 'elu1'), key=before.__getitem__)}"][:, 0]
    both = ", ".join(f"{name} {before[name]:.3f} to {after[name]:.3f}" for name in STUDENTS)
    return [
        PAPER.claim(
            "divergence",
            "distilled maps come closer to the softmax weights of a trained model "
            "than elu + 1: mean KL, at most half",
            0.5 * kl["elu1"],
            kl["distilled"],
            "<",
            because="it is half of what elu + 1 has in this run",
            note=f"undistilled {kl['undistilled']:.3f}, elu + 1 {kl['elu1']:.3f} nats; {seeds}",
        ),
        PAPER.claim(
            "swap",
            "put in place of softmax without fine-tuning, distilled maps keep more of "
            "the teacher's recall than undistilled ones",
            bar(rivals, found["accuracy_distilled"][:, 0], guess),
            before["distilled"],
            ">=",
            because="it is what the better of these has in this run and two standard errors, "
            "twice a guess at least",
            note=both,
        ),
        PAPER.claim(
            "swap-share",
            "and 0.8 of the teacher's",
            0.8,
            float(swapped.mean()),
            ">=",
            because="heads of 32 dimensions lose less than those of 16, and 0.8 is what they "
            "were seen to keep",
            seeds=swapped,
        ),
        PAPER.claim(
            "fine-tuned",
            "fine-tuned, the distilled student recalls more than elu + 1 by 0.2",
            after["elu1"] + 0.2,
            after["distilled"],
            ">=",
            because="elu + 1 is this run's, and 0.2 a clear gain",
            note=both,
        ),
        PAPER.claim(
            "kept",
            "fine-tuned, it keeps 97 % of the teacher's recall (BERT on GLUE: 99 %)",
            0.97,
            float(tuned.mean()),
            ">=",
            because="recall is harder on a small state than GLUE is, and heads are of "
            f"{config.dim // config.heads} dimensions, not 64",
            note=seeds,
            seeds=tuned,
        ),
    ]
