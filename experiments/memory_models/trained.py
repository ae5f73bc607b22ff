"""Small decoders with memories, trained on associative recall and on needles in a haystack."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jattn
from experiments.functional import Model, decoder, parse_mechanisms, recall_accuracy, recall_loss
from experiments.margins import bar
from experiments.memory_models import figures
from jattn.nn import TransformerConfig
from jattn.tasks.associative_recall import associative_recall
from jattn.tasks.needle import needle
from jattn.training import Claim, FitResult, Paper, Run, UsageError, fit

# Baselines: the papers' transformers have rotary positions.
SOFTMAX, RETENTION = "softmax_attention:rotary=True", "retention"
LOGS, WARM_UP = 10, 0.1
IN_THIS_RUN = "it is what the other has in this run and two standard errors, twice a guess at least"
WHY = {  # why a memory may find fewer needles here
    SOFTMAX: "softmax keeps every token, and these are few: the paper compares at 2K to 16K",
    RETENTION: "gates that were trained on short sequences need not keep for longer ones",
}


class Layer(NamedTuple):
    """A mechanism of the zoo with options, written `name` or `name:option=value:...`."""

    text: str

    def parsed(self) -> tuple[str, dict[str, Any]]:
        return parse_mechanisms(self.text)[0]

    @property
    def slug(self) -> str:
        return self.text.replace(":", "_").replace("=", "")


def layers(config) -> list[Layer]:
    """What is to be trained."""
    return [Layer(text.strip()) for text in config.mechanisms.split(",")]


def model(config, layer: Layer) -> Model:
    """A decoder of one mechanism, with short convolutions, and no positions but its own."""
    return decoder(
        TransformerConfig(
            vocab_size=config.vocabulary,
            dim=config.dim,
            heads=config.heads,
            layers=config.layers,
            mechanisms=layer.parsed(),
            mlp_ratio=config.mlp_ratio,
            short_convolution=config.short_convolution,
            positions="none",
        )
    )


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    for layer in layers(config):
        try:
            model(config, layer)
        except (ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"mechanisms: {layer.text}: {reason}") from None
    try:
        samplers(config)
    except ValueError as error:
        raise UsageError(f"tasks: {error}") from None


def samplers(config) -> tuple[Callable, dict[int, Callable]]:
    """That of recall, and those of needles by length."""
    recall = associative_recall(config.vocabulary, config.recall.length, config.recall.pairs)
    task = config.needle
    lengths = [task.length * factor for factor in task.factors]
    return recall, {n: needle(config.vocabulary, n, task.pairs) for n in lengths}


def _test(config, made: Model, params: Any, sample: Callable) -> jax.Array:
    """Accuracy on the same sequences at every call."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1), config.test_size)
    return recall_accuracy(made, params, jax.vmap(sample)(keys))


def _train(
    run: Run, config, name: str, layer: Layer, sample: Callable, record: Callable | None
) -> FitResult:
    made = model(config, layer)
    warm_up = max(1, round(WARM_UP * config.steps))
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warm_up, config.steps)
    return fit(
        init=made.init,
        loss=lambda params, batch: recall_loss(made, params, batch),
        sample=sample,
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay)
        ),
        run=run,
        name=f"{name}_{layer.slug}",
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(1, config.steps // LOGS),
        record=record,
    )


def _paper(layer: Layer) -> Paper:
    mechanism = jattn.zoo.info(layer.parsed()[0])
    return Paper(f"arXiv {mechanism.arxiv}", mechanism.title)


def recalled(run: Run, config, name: str, layer: Layer) -> FitResult:
    """Trains on associative recall; `history["accuracy"]` is `[notes, seeds]`."""
    sample, _ = samplers(config)
    made = model(config, layer)
    record = lambda params: {"accuracy": _test(config, made, params, sample)}
    return _train(run, config, name, layer, sample, record)


def recall(run: Run, config) -> list[Claim]:
    """Multi-query associative recall."""
    curves, steps = {}, np.zeros(0)
    for layer in layers(config):
        result = recalled(run, config, "recall", layer)
        curves[layer.text], steps = result.history["accuracy"], result.steps
    figures.recall_over_steps(run, curves, steps, 1 / config.recall.pairs)
    end = {name: curve[-1] for name, curve in curves.items()}
    note = f"{config.recall.pairs} pairs, {config.seeds} seeds, {config.steps} steps"
    guess = 1 / config.recall.pairs
    return [
        _paper(layer).claim(
            f"recall-{layer.slug}",
            f"recall: {layer.text} above retention, whose writes do not look",
            bar(end[RETENTION], end[layer.text], guess),
            float(end[layer.text].mean()),
            ">=",
            because=IN_THIS_RUN,
            note=f"retention {end[RETENTION].mean():.3f}, a guess {guess:.3f}; {note}",
            seeds=end[layer.text],
        )
        for layer in layers(config)
        if RETENTION in end and layer.text != RETENTION
    ]


def needles(run: Run, config) -> list[Claim]:
    """A needle in a haystack, in sequences as long as in training and longer."""
    _, tests = samplers(config)
    lengths = list(tests)
    found = {}
    for layer in layers(config):
        result = _train(run, config, "needle", layer, tests[lengths[0]], None)
        made = model(config, layer)
        one = lambda params: [_test(config, made, params, test) for test in tests.values()]  # noqa: B023
        at_end = jax.jit(jax.vmap(one))
        compute = lambda: {"accuracy": np.stack(at_end(result.params))}  # noqa: B023
        found[layer.text] = run.cached(f"needle_{layer.slug}", compute)["accuracy"]
    guess = 1 / (config.vocabulary // 4)
    figures.accuracy_over_length(run, found, lengths, guess)
    mean = {name: accuracy.mean(1) for name, accuracy in found.items()}
    seeds = f"{config.needle.pairs} needles, {config.seeds} seeds, {config.steps} steps"
    claims = []
    for layer in layers(config):
        if jattn.zoo.info(layer.parsed()[0]).family != "memory":
            continue
        shown = ", ".join(f"{a:.3f}" for a in mean[layer.text])
        for other in (RETENTION, SOFTMAX):
            if other not in mean:
                continue
            theirs = ", ".join(f"{a:.3f}" for a in mean[other])
            why = f"at {lengths}: {shown}, {other} {theirs}; {seeds}"
            longest = {name: found[name][-1] for name in (other, layer.text)}
            needed = bar(longest[other], longest[layer.text], guess)
            if needed > mean[layer.text][-1]:
                why += f"; {WHY[other]}"
            claims.append(
                _paper(layer).claim(
                    f"needle-{layer.slug}-{Layer(other).slug}",
                    f"needles at {lengths[-1]} tokens, trained at {lengths[0]}: {layer.text} "
                    f"finds more than {other}",
                    needed,
                    float(mean[layer.text][-1]),
                    ">=",
                    because=IN_THIS_RUN,
                    note=why,
                    seeds=longest[layer.text],
                )
            )
    return claims
