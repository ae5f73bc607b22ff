"""Music Transformer: a melody that repeats, read at twice the length of training.

A sequence is a few random notes again and again; how many is another number in each. From the
second time on, each note can be told. Tables of distances say where to look at any place; how
sinusoids differ by a period has to be learned, and training never saw those of later places.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.longer_sequences.common import losses_by_place
from experiments.plots import COLORS, label, panels
from experiments.token_tasks import Example
from jattn.nn import TransformerConfig
from jattn.training import Claim, Paper, Run, UsageError

PAPER = Paper("arXiv 1809.04281", "Music Transformer")


def period(run: Run, config) -> list[Claim]:
    """Trains with sinusoids and with distances, and reads on beyond the length of training."""
    settings = config.period
    if not 1 <= settings.shortest <= settings.longest < settings.length:
        raise UsageError(
            "period.shortest: expected 1 <= shortest <= longest < length, got "
            f"{settings.shortest}, {settings.longest}, {settings.length}"
        )
    variants = {
        "sinusoids": ("sinusoidal", "softmax_attention"),
        "relative": ("none", ("relative_attention", {"max_distance": settings.length})),
    }
    found = {}
    for name, (positions, mechanism) in variants.items():
        model = TransformerConfig(
            vocab_size=settings.notes,
            dim=settings.dim,
            heads=settings.heads,
            layers=settings.layers,
            mechanisms=mechanism,
            positions=positions,
            mlp_ratio=2.0,
        )
        found[name] = losses_by_place(
            run,
            f"period_{name}",
            model,
            settings,
            melodies(settings, settings.length),
            melodies(settings, 2 * settings.length),
            seed=config.seed,
        )
    _figure(run, settings, found)
    return _claims(settings, found)


def melodies(settings, length: int):
    """The sampler of sequences of so many notes; from the second time on, they count."""

    def sample(key):
        of_period, of_notes = jax.random.split(key)
        n = jax.random.randint(of_period, (), settings.shortest, settings.longest + 1)
        notes = jax.random.randint(of_notes, (settings.longest,), 0, settings.notes)
        place = jnp.arange(length + 1)
        melody = notes[place % n]
        return Example(melody[:-1], melody[1:], place[1:] >= n)

    return sample


def _claims(settings, found) -> list[Claim]:
    trained = settings.length

    def loss(name, part):
        return np.nanmean(found[name][:, part], axis=1)

    whole, seen, beyond = slice(None), slice(trained), slice(trained, None)
    sinusoids, relative = loss("sinusoids", whole), loss("relative", whole)
    return [
        PAPER.claim(
            "period-twice",
            "At twice the length of training distances predict better than sinusoids: loss over "
            "theirs, mean of the seeds.",
            0.8,
            float(relative.mean() / sinusoids.mean()),
            "<",
            because="a fifth less is a clear gain",
            seeds=relative / sinusoids,
            note=f"{relative.mean():.3f} and {sinusoids.mean():.3f} nats at {2 * trained} notes; "
            f"chance {np.log(settings.notes):.2f}",
        ),
        PAPER.claim(
            "period-beyond",
            "Behind the length of training distances predict as well as before it: loss beyond "
            "less loss within, mean of the seeds.",
            0.05,
            float((loss("relative", beyond) - loss("relative", seen)).mean()),
            "<",
            because="less counts as no difference",
            note=f"sinusoids {(loss('sinusoids', beyond) - loss('sinusoids', seen)).mean():.3f}; "
            f"within, distances {loss('relative', seen).mean():.3f}, sinusoids "
            f"{loss('sinusoids', seen).mean():.3f}",
        ),
    ]


def _figure(run: Run, settings, found) -> None:
    figure, axes = panels(1, 1, width=5.0)
    axis = axes[0, 0]
    for name, color in zip(found, COLORS, strict=False):
        axis.plot(found[name].T, color=color, linewidth=1)
        axis.plot([], [], color=color, label=name)
    axis.axvline(settings.length, color="black", linestyle=":", linewidth=0.8)
    axis.axhline(np.log(settings.notes), color="#666666", linestyle="--", linewidth=0.8)
    label(axis, "place", "loss (nats)", "a melody that repeats")
    run.save_figure(
        figure,
        "period",
        "Loss at every note that can be told, one line a seed; dotted: the length of training, "
        "dashed: chance.",
    )
