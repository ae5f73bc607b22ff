"""Asks which ingredients of attention a decoder of text needs, and in how many of its layers.

Deconstructing attention (2025, arXiv 2510.11602): that tokens are mixed is indispensable; that
weights depend on what is read now, or have the form of softmax, is needed in some layers only.

    python -m experiments.deconstructed_attention \\
        --config=configs/deconstructed_attention.py:small --workdir=runs/deconstructed_attention

The settings, presets and expected times are in configs/deconstructed_attention.py.
"""

import numpy as np

from experiments.deconstructed_attention import decoders, figures
from jattn.training import Claim, Paper, Run, UsageError

PAPER = Paper("arXiv 2510.11602", "Deconstructing attention")


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains the standard decoder, and each variant in all layers and in every other one."""
    for name in config.variants:
        if name not in decoders.VARIANTS:
            wanted = ", ".join(decoders.VARIANTS)
            raise UsageError(f"variants: expected any of {wanted}, got {name!r}")
    if config.layers < 2:
        raise UsageError(f"layers: expected at least 2, got {config.layers}")
    losses = {"standard": decoders.trained(run, config, None, "uniform")["loss"]}
    for name in config.variants:
        losses[f"{name}, uniform"] = decoders.trained(run, config, name, "uniform")["loss"]
        found = decoders.trained(run, config, name, "hybrid")
        losses |= {f"{name}, hybrid": found["loss"], f"{name}, skip": found["skip"]}
    for name, loss in losses.items():
        run.note(f"{name}: {loss.mean():.3f} nats a byte ({', '.join(f'{x:.3f}' for x in loss)})")
    figures.draw(run, config.variants, losses)
    return claims(config.variants, losses)


def claims(variants, losses: dict[str, np.ndarray]) -> list[Claim]:
    """What the paper says of the variants that are there; losses `[seeds]` in nats a byte."""
    standard = losses["standard"]
    above = {
        form: {name: losses[f"{name}, {form}"] - standard for name in variants}
        for form in ("uniform", "hybrid", "skip")
    }

    def listed(form: str) -> str:
        return ", ".join(f"{name} {found.mean():+.3f}" for name, found in above[form].items())

    found = []
    if "mlp" in variants:
        lost = above["uniform"]["mlp"]
        found.append(
            PAPER.claim(
                "mixing",
                "Without mixing of tokens in any layer, text costs more: nats a byte above "
                "standard attention.",
                0.3,
                float(lost.mean()),
                ">",
                where="table of perplexities, MLP",
                because="0.3 nats is a clear loss; the paper's models lose 3.3 a token",
                note=f"all layers: {listed('uniform')}",
                seeds=lost,
            )
        )
    for less, more in (("standard", "static"), ("static", "mlp")):
        if more in variants and less in ("standard", *variants):
            before = standard if less == "standard" else losses[f"{less}, uniform"]
            lost = losses[f"{more}, uniform"] - before
            found.append(
                PAPER.claim(
                    f"order-{more}",
                    f"In all layers, {more} is no better than {less}: nats a byte above it.",
                    0.0,
                    float(lost.mean()),
                    ">=",
                    where="table of perplexities",
                    because="the order of the paper's perplexities is what is asked",
                    seeds=lost,
                )
            )
    for name in variants:
        lost, skipped = above["hybrid"][name], above["skip"][name] - above["hybrid"][name]
        found += [
            PAPER.claim(
                f"hybrid-{name}",
                f"{name} in every other layer costs little: nats a byte above standard attention.",
                0.1,
                float(lost.mean()),
                "<=",
                where="table of hybrids",
                because="the paper's hybrids lose 0.01 to 0.03 nats a token, and 0.18 with MLPs",
                seeds=lost,
            ),
            PAPER.claim(
                f"skip-{name}",
                f"{name}'s layers are of use: taken out of the trained hybrid they cost, in nats "
                "a byte.",
                0.5,
                float(skipped.mean()),
                ">=",
                where="table of hybrids, skip",
                because="0.5 nats is a collapse; the paper's models lose more than 6 a token",
                seeds=skipped,
            ),
        ]
    return found
