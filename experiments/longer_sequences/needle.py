"""Grouped differential attention: the weight that a needle gets among more and more other keys.

The question is a key seen through noise, and one of n tokens has this key and a value that is to
be told. One layer of attention is trained at one n. What two softmax maps both see is
taken away, so weight on all that does not match should shrink.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import optimizer
from experiments.plots import COLORS, label, log_scale, panels
from jattn.attention import attend
from jattn.mechanisms import zoo
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.mixer import edit_parts
from jattn.mechanisms.softmax.differential_attention import VECTORS, diff_lambda, lambda_at
from jattn.mechanisms.softmax.grouped_differential_attention import grouped_differential_attention
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2510.06949", "Grouped differential attention")
DIFFERENTIAL = Paper("arXiv 2410.05258", "Differential transformer")


def needle(run: Run, config) -> list[Claim]:
    """Trains one layer with one map and with two, and counts the weight on the needle."""
    settings = config.needle
    if settings.heads % settings.ratio:
        raise UsageError(
            f"needle.ratio: expected a divisor of {settings.heads} heads, got {settings.ratio}"
        )
    # The same width, and keys and values of the same size: a head of one map is half as large.
    maps = {
        "softmax": (zoo.make("softmax_attention", **_sizes(settings, 2)), None),
        "1:1": (_grouped(settings, 1), 1),
        f"{settings.ratio}:1": (_grouped(settings, settings.ratio), settings.ratio),
    }
    found = {name: _trained(run, config, name, *made) for name, made in maps.items()}
    _figure(run, settings, found)
    return _claims(settings, found)


def _sizes(settings, per_head: int) -> dict[str, Any]:
    kv_heads = per_head * settings.heads // settings.ratio
    return {"dim": 2 * settings.dim, "heads": per_head * settings.heads, "kv_heads": kv_heads}


def _grouped(settings, ratio: int):
    name = "grouped_differential_attention"
    return zoo.make(name, **_sizes(settings, 1), ratio=ratio)


def _sampler(settings, n: int):
    """Keys `[n, dim]`, values `[n]`, and the question `[1, dim]`: the first key, and noise."""

    def sample(key):
        of_keys, of_values, of_noise = jax.random.split(key, 3)
        keys = jax.random.normal(of_keys, (n, settings.dim))
        values = jax.random.randint(of_values, (n,), 0, settings.classes)
        # The tokens are in random order: the first is as good as any.
        asked = keys[:1] + settings.noise * jax.random.normal(of_noise, (1, settings.dim))
        return keys, values, asked

    return sample


def mass(mixer, ratio: int | None, params, x, source, indicators) -> jax.Array:
    """Weight on the first token over that on all, signs apart: mean over heads, `[b]`."""
    seen = []

    def watch(parts):
        def core(params, query, key, value, context):
            seen.append((query, key))
            return parts.core(params, query, key, value, context)

        return parts._replace(core=core)

    edit_parts(mixer, watch).apply(params, x, context=source)
    query, key = seen[0]
    # Values that say where they stand: what comes out are the weights.
    indicators = jnp.broadcast_to(indicators[None, :, None], (*key.shape[:2], 1, key.shape[1]))
    if ratio is None:
        weights = attend(query, key, indicators)
    else:
        lam = diff_lambda(**{name: params[name] for name in VECTORS}, lambda_init=lambda_at(0))
        weights = grouped_differential_attention(query, key, indicators, lam, ratio=ratio)
    last = jnp.abs(weights[:, -1])  # `[b, h, s]`
    return (last[..., 0] / last.sum(-1)).mean(-1)


def _trained(run: Run, config, name: str, mixer, ratio) -> dict[str, np.ndarray]:
    """Mass on the needle and share of right answers, `[numbers of keys, seeds]`."""
    settings = config.needle

    def init(key):
        of_mixer, of_values, of_out = jax.random.split(key, 3)
        return {
            "mixer": mixer.init(of_mixer),
            "values": jax.random.normal(of_values, (settings.classes, settings.dim)),
            "out": jax.random.normal(of_out, (2 * settings.dim, settings.classes))
            * (2 * settings.dim) ** -0.5,
        }

    def embedded(params, batch):
        keys, values, asked = batch
        tokens = jnp.concatenate([keys, params["values"][values]], -1)
        return jnp.pad(asked, ((0, 0), (0, 0), (0, settings.dim))), tokens

    def logits(params, batch):
        question, tokens = embedded(params, batch)
        out = mixer.apply(params["mixer"], question, context=tokens)[:, 0]
        return rms_norm(out) @ params["out"]

    def loss(params, batch):
        answers = batch[1][:, 0]
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, batch), answers
        ).mean()

    slug = f"needle_{name.replace(':', '_to_')}"
    params = fit(
        init,
        loss,
        _sampler(settings, settings.trained),
        optimizer(settings.learning_rate, settings.steps),
        run=run,
        name=slug,
        seeds=settings.seeds,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=config.seed,
        log_every=max(settings.steps // 10, 1),
    ).params

    def measure():
        on_one_device = jax.tree.map(np.asarray, params)
        found = {"mass": [], "right": []}
        keys = jax.random.split(jax.random.key(config.seed + 1_000_000), settings.test_size)
        most = jax.jit(jax.vmap(_sampler(settings, max(settings.among))))(keys)
        for n in settings.among:
            batch = (most[0][:, :n], most[1][:, :n], most[2])

            def one(params, batch, indicators):
                right = (logits(params, batch).argmax(-1) == batch[1][:, 0]).mean()
                weight = mass(mixer, ratio, params["mixer"], *embedded(params, batch), indicators)
                return {"mass": weight.mean(), "right": right}

            # The batch as an argument, or the compiler would fold it.
            each = jax.jit(lambda params, *given: jax.lax.map(lambda p: one(p, *given), params))
            here = each(on_one_device, batch, jnp.eye(n))
            for field, value in here.items():
                found[field].append(np.asarray(value))
        return {field: np.stack(values) for field, values in found.items()}

    return run.cached(slug, measure)


def _claims(settings, found) -> list[Claim]:
    plain, one, grouped = (row["mass"][-1] for row in found.values())
    name = list(found)[-1]
    most = f"among {settings.among[-1]} keys, trained at {settings.trained}"
    right = ", ".join(f"{name} {row['right'][-1].mean():.2f}" for name, row in found.items())
    return [
        DIFFERENTIAL.claim(
            "needle-differential",
            f"The difference of two maps puts more of its weight on the needle than one: {most}.",
            float(plain.mean()),
            float(one.mean()),
            ">",
            because="it is what softmax has in this run",
            seeds=one,
            note=f"{settings.seeds} seeds; right answers: {right}",
        ),
        PAPER.claim(
            "needle-grouped",
            f"So does that of {name} signal and noise heads.",
            float(plain.mean()),
            float(grouped.mean()),
            ">",
            because="it is what softmax has in this run",
            seeds=grouped,
        ),
        PAPER.claim(
            "needle-ratio",
            f"{name} is better than 1:1: right answers {most}.",
            float(found["1:1"]["right"][-1].mean()),
            float(found[name]["right"][-1].mean()),
            ">",
            because="it is what 1:1 has in this run",
            note=f"mass {grouped.mean():.3f} and {one.mean():.3f}; the paper's models are far "
            "larger, and here it has fewer queries at the same keys and values",
        ),
    ]


def _figure(run: Run, settings, found) -> None:
    figure, axes = panels(1, 2, width=3.2)
    for axis, field, name in zip(
        axes[0], ("mass", "right"), ("mass", "right answers"), strict=True
    ):
        for (variant, row), color in zip(found.items(), COLORS, strict=False):
            axis.plot(
                settings.among, row[field], color=color, marker="o", markersize=3, linewidth=1
            )
            axis.plot([], [], color=color, label=variant)
        axis.axvline(settings.trained, color="black", linestyle=":", linewidth=0.8)
        log_scale(axis, "x")
        label(axis, "keys", f"{name} on the needle" if field == "mass" else name)
    run.save_figure(
        figure,
        "needle",
        "Share of the weight, signs apart, that the needle gets, and of questions answered, by "
        "the number of keys; one line a seed; dotted: the number in training.",
    )
