"""Titans' memory as context on text, whole and with a part removed: the paper's table of them."""

import jax
import numpy as np

from experiments.functional import Model, decoder, optimizer, parse_mechanisms
from experiments.margins import CLEAR, standard_error
from experiments.memory_models import figures
from experiments.memory_models.common import TITANS
from experiments.token_tasks import loss_in_training, make_task, quality
from jattn.nn import TransformerConfig
from jattn.training import Claim, Run, UsageError, fit

FULL = "whole"
# What is removed, as options of the mechanism; the paper's perplexity without it (whole: 27.01).
REMOVED = {
    "deep memory": ("depth=1", 28.49),
    "filters": ("convolution=0", 28.73),
    "momentum": ("momentum=False", 28.98),
    "forgetting": ("forgetting=none", 29.04),
    "persistent tokens": ("persistent=0", 27.63),
}


def ablated(settings, vocabulary: int, removed: str | None) -> Model:
    """The decoder without a part. Its only filters are the memory's own."""
    entry = settings.mechanism + (f":{REMOVED[removed][0]}" if removed else "")
    return decoder(
        TransformerConfig(
            vocab_size=vocabulary,
            dim=settings.dim,
            heads=settings.heads,
            layers=settings.layers,
            mechanisms=parse_mechanisms(entry)[0],
            mlp_ratio=settings.mlp_ratio,
            positions="none",
        )
    )


def ablations(run: Run, config) -> list[Claim]:
    """Bits a byte of held-out text, from the same seeds and data."""
    settings = config.ablations
    task = make_task("text", settings)
    keys = jax.random.split(jax.random.key(config.seed + 1_000_000), settings.test_size)
    test = jax.vmap(task.test(task.length))(keys)
    bits = {}
    for removed in (None, *REMOVED):
        try:
            made = ablated(settings, task.vocabulary, removed)
        except (ValueError, TypeError) as error:
            raise UsageError(f"ablations: {str(error).splitlines()[0]}") from None
        params = fit(
            made.init,
            lambda params, batch, made=made: loss_in_training(made, params, batch),
            task.sample,
            optimizer(settings.learning_rate, settings.steps),
            run=run,
            name=f"ablation_{removed or FULL}".replace(" ", "_"),
            seeds=settings.seeds,
            steps=settings.steps,
            batch_size=settings.batch_size,
            seed=config.seed,
            log_every=max(1, settings.steps // 10),
        ).params

        def measured(made=made, params=params):
            one = lambda params: quality(made, "bits", params, test)
            return {"bits": np.asarray(jax.jit(lambda every: jax.lax.map(one, every))(params))}

        name = removed or FULL
        bits[name] = run.cached(f"ablation_{name}".replace(" ", "_"), measured)["bits"]
        run.note(f"{'without ' if removed else ''}{name}: {bits[name].mean():.3f} bits a byte")
    figures.ablated(run, bits)
    return claims_of(settings, bits)


def claims_of(settings, bits: dict[str, np.ndarray]) -> list[Claim]:
    """Each part is worth something, seed by seed."""
    claims = []
    for removed, (_, perplexity) in REMOVED.items():
        lost = bits[removed] - bits[FULL]
        mean, spread = float(lost.mean()), CLEAR * standard_error(lost)
        claims.append(
            TITANS.claim(
                f"without-{removed.replace(' ', '-')}", f"text: without {removed} the model is "
                "worse: bits a byte more", 0.0, mean, ">", where="table of ablations",
                note=f"{bits[removed].mean():.3f} against {bits[FULL].mean():.3f}, {len(lost)} "
                f"seeds, {settings.steps} steps; paper's perplexity {perplexity} against 27.01",
                interval=(mean - spread, mean + spread),
            )
        )  # fmt: skip
    return claims
