"""One decoder, trained with softmax attention and with parts of it exchanged (A1 to A6)."""

import itertools
import re

import jax
import numpy as np
import optax

from configs.softmax_as_rnn import L2
from experiments.functional import Model, decoder
from experiments.margins import CLEAR, standard_error
from experiments.softmax_as_rnn import figures
from experiments.softmax_as_rnn.common import PAPER
from experiments.token_tasks import loss_in_training, make_task, mean_loss, quality
from jattn.mechanisms.linear.softmax_variants import VARIANTS, Variant
from jattn.nn import TransformerConfig
from jattn.training import Claim, Run, UsageError, fit

LOGS = 12
# What counts as near, of the distance from softmax to linear attention; the paper has figures.
SHARE = 0.25
EVEN = ("taylor_2", "taylor_4", "taylor_6")
NORMS = {
    L2: "the length of the output",
    "gated_softmax_no_gate_rmsnorm_nodivS": "RMSNorm",
    "gated_softmax_no_gate": "LayerNorm",
}
DENOMINATORS = {"softmax_clamp_denom": "clamped", "softmax_detach_denom": "detached"}
# What the paper finds too little by itself.
ALONE = {
    "A8": ("softmax_divs", "division by the length alone"),
    "A9": ("softmax_gate", "a gate alone"),
}
LINEAR = ("linear_relu", "linear_elu", "linear_cosine", "gated_ReLU_no_gate_L2norm_nodivS_noclamp")


def parse(name: str) -> Variant:
    """The variant of that name; `taylor_N` is the polynomial of order N.

    Raises:
        ValueError: there is none.
    """
    order = re.fullmatch(r"taylor_(\d+)", name)
    if order:
        return Variant("taylor", order=int(order[1]))
    if name not in VARIANTS:
        raise ValueError(f"no variant {name!r}; there are taylor_N, {', '.join(VARIANTS)}")
    return VARIANTS[name]


def model(config, name: str, vocabulary: int, length: int) -> Model:
    """The decoder with one variant in all layers."""
    settings = TransformerConfig(
        vocab_size=vocabulary,
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=("softmax_variant", {"variant": parse(name)}),
        mlp_ratio=config.mlp_ratio,
        short_convolution=config.short_convolution,
        positions=config.positions,
        max_length=length,
    )
    return decoder(settings)


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if config.task not in ("recall", "text"):
        raise UsageError(f"task: expected recall or text, got {config.task!r}")
    if len(set(config.variants)) < len(config.variants):
        raise UsageError("variants: expected each one once")
    try:
        task = make_task(config.task, config)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for name in config.variants:
        try:
            model(config, name, task.vocabulary, task.length)
        except ValueError as error:
            raise UsageError(f"variants: {error}") from None


def optimizer(config) -> optax.GradientTransformation:
    """AdamW; the rate rises on a line, then falls on one."""
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, config.warm_up),
            optax.linear_schedule(
                config.learning_rate, 0.0, max(config.decay_steps - config.warm_up, 1)
            ),
        ],
        [config.warm_up],
    )
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    return optax.chain(*clip, optax.adamw(rate, weight_decay=config.weight_decay))


def ablations(run: Run, config) -> list[Claim]:
    """Trains every variant; what each misses of softmax."""
    task = make_task(config.task, config)
    keys = jax.random.split(jax.random.key(config.seed + 1_000_000), config.test_size)
    test = jax.vmap(task.test(task.length))(keys)
    curves, right, steps = {}, {}, np.zeros(0)
    for name in config.variants:
        decoder = model(config, name, task.vocabulary, task.length)

        def record(params, decoder=decoder):
            return {
                "test": mean_loss(decoder, params, test),
                "right": quality(decoder, "accuracy", params, test),
            }

        result = fit(
            decoder.init,
            lambda params, batch, decoder=decoder: loss_in_training(decoder, params, batch),
            task.sample,
            optimizer(config),
            run=run,
            name=name,
            seeds=config.seeds,
            steps=config.steps,
            batch_size=config.batch_size,
            seed=config.seed,
            log_every=max(config.steps // LOGS, 1),
            record=record,
        )
        curves[name] = result.history["test"].T  # [seeds, logs]
        right[name] = float(result.history["right"][-1].mean())
        steps = result.steps
    figures.loss_over_steps(run, curves, steps)
    figures.loss_by_variant(run, curves, right)
    return _claims(config, {name: curve[:, -1] for name, curve in curves.items()}, right)


def _claims(config, end: dict[str, np.ndarray], right: dict[str, float]) -> list[Claim]:
    mean = {name: float(losses.mean()) for name, losses in end.items()}
    basis = f"{config.seeds} seeds, {config.steps} steps, {config.task}; nats"

    def note(*names: str) -> str:
        return ", ".join(f"{n} {mean[n]:.3f} ({right[n]:.1%} right)" for n in names) + f"; {basis}"

    claims: list[Claim] = []

    def claim(id: str, statement: str, bound: float, values: np.ndarray, relation: str, names):
        """About a mean over seeds `[seeds]`, two standard errors to each side."""
        because = "no difference is no loss; two standard errors decide"
        if bound == SHARE:
            because = f"{SHARE:g} of what another layer loses is little"
        measured, reach = float(np.mean(values)), CLEAR * standard_error(values)
        several = len(values) > 1 and np.isfinite(reach)
        claims.append(
            PAPER.claim(
                id, statement, bound, measured, relation, because=because, note=note(*names),
                seeds=values, interval=(measured - reach, measured + reach) if several else None,
            )
        )  # fmt: skip

    if not {"softmax", "linear_relu"} <= set(mean):
        return claims
    gap = mean["linear_relu"] - mean["softmax"]

    def distance(name: str) -> np.ndarray:
        """From softmax, as a share of what linear attention loses."""
        if gap <= 0:
            return np.full(len(end[name]), np.inf)
        return np.abs(end[name] - end["softmax"]) / gap

    share = "distance of the losses, as a share of what linear attention (relu) loses"
    for number, (name, words) in enumerate(NORMS.items()):
        if name in mean:
            claim(f"A{1 + (number > 0)}-{name}" if number else "A1",
                  f"{words} can stand in for the denominator: {share}", SHARE, distance(name), "<",
                  ("softmax", name, "linear_relu"))  # fmt: skip
    if set(EVEN) <= set(mean):
        rises = [end[b] - end[a] for a, b in itertools.pairwise(EVEN)]
        claim("A3", "the loss falls from order 2 to 4 to 6: least change", 0.0,
              max(rises, key=np.mean), "<", EVEN)  # fmt: skip
        claim("A4", "order 2 stays behind softmax: difference of the losses", 0.0,
              end["taylor_2"] - end["softmax"], ">", ("taylor_2", "softmax"))  # fmt: skip
    linear = [name for name in LINEAR if name in mean]
    claim("A5", "linear attention stays behind softmax: least difference of the losses", 0.0,
          min((end[name] - end["softmax"] for name in linear), key=np.mean), ">",
          ("softmax", *linear))  # fmt: skip
    if "softmax_taylor_80terms" in mean:
        name = "softmax_taylor_80terms"
        claim("A6", f"80 orders train as softmax does: {share}", SHARE, distance(name), "<",
              ("softmax", name))  # fmt: skip
    for name, words in DENOMINATORS.items():
        if name in mean:
            claim(f"A7-{name}", f"{words} denominators train as softmax does: {share}", SHARE,
                  distance(name), "<", ("softmax", name))  # fmt: skip
    norms = [name for name in NORMS if name in mean]
    for id, (name, words) in ALONE.items():
        if name in mean and norms:
            farthest = max(norms, key=lambda norm: distance(norm).mean())
            claim(id, f"{words} is farther from softmax than every norm: distance less that of the "
                  "farthest norm, shares as above", 0.0, distance(name) - distance(farthest), ">",
                  ("softmax", name, *norms))  # fmt: skip
    return claims
