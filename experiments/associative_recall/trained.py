"""The same decoder with one mechanism after the other, trained on associative recall."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
import optax

import jattn
from experiments.associative_recall import figures
from experiments.associative_recall.overwriting import DELTA_RULE
from experiments.functional import decoder, recall_accuracy, recall_loss
from experiments.margins import bar
from jattn.nn import TransformerConfig
from jattn.tasks.associative_recall import associative_recall
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2312.04927", "Zoology")  # the task, and what a state can hold
HEDGEHOG = Paper("arXiv 2402.04347", "The Hedgehog & the Porcupine")
FAMILIES = ("linear", "memory")
SOFTMAX, SUM, LOGS = "softmax_attention", "linear_attention", 20


class Case(NamedTuple):
    """What is trained on what."""

    mechanism: str
    dim: int
    heads: int
    length: int
    pairs: int

    @property
    def name(self) -> str:
        return f"{self.mechanism}_d{self.dim}x{self.heads}_t{self.length}p{self.pairs}"


class Outcome(NamedTuple):
    """Of the best learning rate.

    Attributes:
        steps: at which accuracy was noted, `[logs]`.
        accuracy: `[seeds, logs]`.
        state: numbers that a layer keeps of a sequence.
    """

    steps: np.ndarray
    accuracy: np.ndarray
    state: int

    @property
    def final(self) -> float:
        return float(self.accuracy[:, -1].mean())


def mechanisms(config) -> list[str]:
    """Those asked for."""
    if config.mechanisms != "all":
        return [name.strip() for name in config.mechanisms.split(",")]
    specs = [jattn.zoo.info(name) for name in jattn.zoo.names()]
    return [SOFTMAX] + [spec.name for spec in specs if spec.causal and spec.family in FAMILIES]


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    for name in mechanisms(config):
        try:
            causal = jattn.zoo.info(name).causal
        except ValueError as error:
            raise UsageError(f"mechanisms: {error}") from None
        if not causal:
            raise UsageError(f"mechanisms: {name} has no causal form")
    for field in ("tasks", "sizes", "learning_rates"):
        if not config[field]:
            raise UsageError(f"{field}: expected at least one, got none")
    for length, pairs in config.tasks:
        try:
            associative_recall(config.vocabulary, length, pairs)
        except ValueError as error:
            raise UsageError(f"tasks: ({length}, {pairs}): {error}") from None
    for case in cases(config):
        try:
            settings(config, case)
        except ValueError as error:
            raise UsageError(f"sizes: {case.mechanism}: {error}") from None


def cases(config) -> list[Case]:
    """Every mechanism at every size on every task."""
    return [
        Case(name, dim, heads, length, pairs)
        for length, pairs in config.tasks
        for dim, heads in config.sizes
        for name in mechanisms(config)
    ]


def settings(config, case: Case) -> TransformerConfig:
    """The decoder. A recurrence knows the order of tokens; softmax has to be told their places."""
    spec = jattn.zoo.info(case.mechanism)
    knows_order = spec.family in FAMILIES
    projects = not {"query", "key", "value"}.issubset(spec.absent)
    return TransformerConfig(
        vocab_size=config.vocabulary,
        dim=case.dim,
        heads=case.heads,
        layers=config.layers,
        mechanisms=case.mechanism,
        mlp_ratio=config.mlp_ratio,
        short_convolution=config.short_convolution if projects else 0,
        positions="none" if knows_order else "learned",
        max_length=case.length,
        tie_embeddings=False,
    )


def state_size(case: Case) -> int:
    """Numbers that one layer keeps of a sequence: a state, or keys and values of all tokens."""
    mixer = jattn.zoo.make(case.mechanism, dim=case.dim, heads=case.heads, causal=True)
    if mixer.init_state is None:
        return 2 * case.length * case.dim
    make_state = mixer.init_state
    state = jax.eval_shape(
        lambda key: make_state(mixer.init(key), 1, case.length), jax.random.key(0)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim > 0)


def train(run: Run, config, case: Case) -> Outcome:
    """Trains one case at every learning rate, from all seeds."""
    model = decoder(settings(config, case))
    sample = associative_recall(config.vocabulary, case.length, case.pairs)
    keys = jax.random.split(jax.random.key(config.seed + 1_000_000), config.test_size)
    test = jax.vmap(sample)(keys)

    tried = []
    for rate in config.learning_rates:
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, config.warm_up, config.steps)
        adam = optax.adamw(schedule, weight_decay=config.weight_decay)
        result = fit(
            model.init,
            lambda params, batch: recall_loss(model, params, batch),
            sample,
            optax.chain(optax.clip_by_global_norm(1.0), adam),
            run=run,
            name=f"{case.name}_{rate:g}",
            seeds=config.seeds,
            steps=config.steps,
            batch_size=config.batch_size,
            seed=config.seed,  # all mechanisms meet the same data
            log_every=max(1, config.steps // LOGS),
            record=lambda params: {"accuracy": recall_accuracy(model, params, test)},
        )
        tried.append(Outcome(result.steps, result.history["accuracy"].T, state_size(case)))
    return max(tried, key=lambda outcome: outcome.final)


def recall(run: Run, config) -> list[Claim]:
    """Trains all cases; claims about what writes better and what a state can hold."""
    found = {case: train(run, config, case) for case in cases(config)}
    table = markdown(found)
    (run.workdir / "recall.md").write_text(table)
    for line in table.splitlines():
        run.note(line)
    first = {case: outcome for case, outcome in found.items() if _is_first(config, case)}
    figures.over_steps(run, first)
    if len(config.sizes) > 1:
        figures.over_state(run, found)
    if len(config.tasks) > 1:
        figures.over_pairs(run, found)
    return _claims(config, found)


def _is_first(config, case: Case) -> bool:
    sizes, task = config.sizes[0], config.tasks[0]
    return (case.dim, case.heads, case.length, case.pairs) == (*sizes, *task)


def markdown(found: dict[Case, Outcome]) -> str:
    """Accuracy of every case, in Markdown."""
    lines = [
        "| mechanism | pairs | length | dim | heads | state | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, outcome in found.items():
        each = ", ".join(f"{value:.3f}" for value in outcome.accuracy[:, -1])
        lines.append(
            f"| `{case.mechanism}` | {case.pairs} | {case.length} | {case.dim} | {case.heads} | "
            f"{outcome.state:,} | {outcome.final:.3f} ({each}) |"
        )
    return "\n".join(lines) + "\n"


# What is claimed of d = 16 and 16 pairs: mechanism, by how much it beats sums, who says so.
MARGINS = (("hedgehog", 0.2, HEDGEHOG), ("delta_rule", 0.1, DELTA_RULE))


def _claims(config, found: dict[Case, Outcome]) -> list[Claim]:
    claims = []
    seeds = f"{config.seeds} seeds, {config.steps} steps"
    for (length, pairs), (dim, heads) in itertools.product(config.tasks, config.sizes):
        end = {
            case.mechanism: outcome.accuracy[:, -1]
            for case, outcome in found.items()
            if case[1:] == (dim, heads, length, pairs)
        }
        where = f"{pairs} pairs in {length} tokens, d = {dim}, {heads} heads; {seeds}"
        suffix = f"p{pairs}-d{dim}x{heads}"
        if SOFTMAX in end:
            claims.append(
                PAPER.claim(
                    f"softmax-{suffix}",
                    "softmax attention recalls all",
                    0.99,
                    float(end[SOFTMAX].mean()),
                    ">=",
                    because="one in a hundred may be missed",
                    note=where,
                    seeds=end[SOFTMAX],
                )
            )
        if (dim, heads, pairs) != (16, 1, 16):
            continue
        for name, margin, paper in MARGINS:
            if name in end and SUM in end:
                claims.append(
                    paper.claim(
                        f"{name}-{suffix}",
                        f"{name} recalls more than {SUM} by {margin}",
                        max(end[SUM].mean() + margin, bar(end[SUM], end[name], 1 / pairs)),
                        float(end[name].mean()),
                        ">=",
                        because="it is what the other has in this run and a clear gain, two "
                        "standard errors and twice a guess at least",
                        note=f"{SUM} {end[SUM].mean():.3f}; {where}",
                        seeds=end[name],
                    )
                )
    return claims + _capacity(config, found)


def _capacity(config, found: dict[Case, Outcome]) -> list[Claim]:
    """A sum of writes holds about as many pairs as it has dimensions."""
    claims = []
    tasks = sorted(config.tasks, key=lambda task: task[1])
    sizes = sorted((dim, heads) for dim, heads in config.sizes if heads == 1)
    if SUM not in mechanisms(config):
        return []

    def more(id: str, statement: str, other: Case, own: Case) -> Claim:
        theirs, ours = (found[case].accuracy[:, -1] for case in (other, own))
        return PAPER.claim(
            id,
            statement,
            bar(theirs, ours, 1 / own.pairs),
            float(ours.mean()),
            ">=",
            because="it is the other number of this run and two standard errors, twice a guess at "
            "least",
            note=f"the other {theirs.mean():.3f}",
        )

    if len(tasks) > 1 and sizes:
        few, many = (Case(SUM, *sizes[0], *task) for task in (tasks[0], tasks[-1]))
        says = f"{SUM} recalls more of {few.pairs} pairs than of {many.pairs}, d = {few.dim}"
        claims.append(more("capacity-pairs", says, many, few))
    if len(sizes) > 1:
        small, large = (Case(SUM, *size, *tasks[-1]) for size in (sizes[0], sizes[-1]))
        says = f"{SUM} recalls more of {large.pairs} pairs with d = {large.dim} than {small.dim}"
        claims.append(more("capacity-state", says, small, large))
    return claims
