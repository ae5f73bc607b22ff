"""A trained softmax model, and what is left of it when linear attention takes its place."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.functional import Model
from jattn.attention import attend, masks
from jattn.mechanisms.linear.hedgehog import distillation_loss, hedgehog_features
from jattn.recurrence.feature_maps import FEATURE_MAPS
from jattn.training import Run, sweep

TEACHER, MAPS = "softmax_attention", ("query_map", "key_map")
STUDENTS = {"distilled": "hedgehog", "undistilled": "hedgehog", "elu1": "linear_attention"}
CURVE = 10  # points of a curve of fine-tuning


class Setting(NamedTuple):
    """A task, and models for it.

    Attributes:
        make: a model by what mixes its tokens.
        draw: `(key) -> batch`.
        loss: `(model, params, batch) -> scalar`.
        accuracy: `(model, params) -> ` share right in the test.
        layers: `(module, batch) -> ` queries and keys `[b, t, h, d]` of every layer, as attention
            compares them.
        probe: the batch whose weights are looked at.
        causal: whether tokens see only those before them.
    """

    make: Callable[[str], Model]
    draw: Callable[[jax.Array], Any]
    loss: Callable[[Model, Any, Any], jax.Array]
    accuracy: Callable[[Model, Any], jax.Array]
    layers: Callable[[Any, Any], list[Any]]
    probe: Any
    causal: bool


def paths(module: nnx.Module) -> dict[tuple, Any]:
    """The parameters by their place in the model."""
    state = nnx.state(module)
    return dict(jax.tree_util.tree_flatten_with_path(state)[0])


def taken_over(teacher: Model, student: Model, params: Any, own: Any) -> list[jax.Array]:
    """The student's parameters: the teacher's where it has such, the student's own elsewhere."""
    learned = paths(teacher.module(params))
    return [learned.get(path, leaf) for path, leaf in paths(student.module(own)).items()]


def is_map(student: Model, own: Any) -> list[bool]:
    """Which of a student's parameters belong to feature maps."""
    names = [jax.tree_util.keystr(path) for path in paths(student.module(own))]
    return [any(name in path for name in MAPS) for path in names]


def watching(found: list[Any]) -> Callable[[Any], Any]:
    """An edit of a mixer's parts that changes nothing and appends queries and keys to a list."""

    def watch(parts):
        def core(params, query, key, value, context):
            found.append([query, key])
            return parts.core(params, query, key, value, context)

        return parts._replace(core=core)

    return watch


def softmax_weights(query: jax.Array, key: jax.Array, *, causal: bool = True) -> jax.Array:
    """The teacher's weights `[b, h, t, t]`."""
    mask = masks.causal() if causal else None
    return attend(query, key, key, mask=mask, return_weights=True)[1]


def linear_weights(phi_q: jax.Array, phi_k: jax.Array, *, causal: bool = True) -> jax.Array:
    """Weights of linear attention by features `[b, t, h, n]`: `[b, h, t, t]`."""
    weights = jnp.einsum("bthn,bshn->bhts", phi_q, phi_k)
    weights = jnp.tril(weights) if causal else weights
    return weights / weights.sum(-1, keepdims=True)


def divergence(teacher: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean over rows of KL(teacher | weights), in nats."""
    return jax.scipy.special.kl_div(teacher, jnp.maximum(weights, 1e-30)).sum(-1).mean()


def student_weights(
    name: str, module: Any, layers: list[Any], *, causal: bool = True
) -> list[jax.Array]:
    """Weights of a student's attention at the teacher's queries and keys."""
    if STUDENTS[name] == "linear_attention":
        phi = FEATURE_MAPS["elu1"]
        return [linear_weights(phi(query), phi(key), causal=causal) for query, key in layers]
    found = []
    for block, both in zip(module.blocks, layers, strict=True):
        maps = [block.mixer.arrays()[name] for name in MAPS]
        phi = [hedgehog_features(x, **m) for x, m in zip(both, maps, strict=True)]
        found.append(linear_weights(*phi, causal=causal))
    return found


def train(
    loss: Callable[[Any, Any], jax.Array],
    draw: Callable[[jax.Array], Any],
    params: Any,
    key: jax.Array,
    plan: Any,
    note: Callable[[Any], jax.Array],
) -> tuple[Any, jax.Array]:
    """Adam from `params`; the curve of `note`, with its start and end."""
    adam = optax.adam(optax.cosine_decay_schedule(plan.learning_rate, plan.steps))
    stretch = max(1, plan.steps // CURVE)

    def step(carry, number):
        params, state = carry
        gradient = jax.grad(loss)(params, draw(jax.random.fold_in(key, number)))
        change, state = adam.update(gradient, state)
        return (optax.apply_updates(params, change), state), None

    def piece(carry, first):
        carry, _ = jax.lax.scan(step, carry, first + jnp.arange(stretch))
        return carry, note(carry[0])

    start = note(params)
    starts = jnp.arange(plan.steps // stretch) * stretch
    (params, _), curve = jax.lax.scan(piece, (params, adam.init(params)), starts)
    return params, jnp.concatenate([start[None], curve])


def distilled(
    setting: Setting, student: Model, params: Any, start: Any, learns: list[bool], key, plan: Any
) -> list[jax.Array]:
    """The student's feature maps, moved towards the teacher's weights; all else stays.

    Args:
        setting: the task.
        student: the model whose maps learn.
        params: the teacher's.
        start: the student's.
        learns: which of the student's parameters belong to its maps.
        key: of the batches.
        plan: steps and learning_rate.
    """
    teacher = setting.make(TEACHER)
    merge = lambda maps: [m if own else s for own, m, s in zip(learns, maps, start, strict=True)]

    def loss(maps, batch):
        layers = setting.layers(teacher.module(params), batch)
        module, losses = student.module(merge(maps)), []
        for block, (query, key) in zip(module.blocks, layers, strict=True):
            maps_here = [block.mixer.arrays()[name] for name in MAPS]
            losses.append(distillation_loss(query, key, *maps_here, causal=setting.causal))
        return sum(losses, jnp.zeros(()))

    maps, _ = train(loss, setting.draw, start, key, plan, note=lambda _: jnp.zeros(()))
    return merge(maps)


def converted(setting: Setting, params: Any, key: jax.Array, plans: Any) -> dict[str, jax.Array]:
    """One teacher turned into every student.

    Args:
        setting: the task.
        params: the teacher's.
        key: of the students and of the batches.
        plans: `distillation` and `fine_tuning`, each of steps and a learning rate.

    Returns:
        The teacher's accuracy; scores and weights of one sequence; of each student, the divergence
        of its weights by layer, and its accuracy as it is fine-tuned.
    """
    own, data = jax.random.split(key)
    teacher, causal = setting.make(TEACHER), setting.causal
    layers = setting.layers(teacher.module(params), setting.probe)
    goal = [softmax_weights(*both, causal=causal) for both in layers]
    of_one = lambda weights: jnp.stack([w[0, 0] for w in weights])  # a sequence, a head
    found = {"teacher": setting.accuracy(teacher, params), "weights_teacher": of_one(goal)}
    found["scores"] = jnp.stack([q[0, :, 0] @ k[0, :, 0].T for q, k in layers])
    for name, mechanism in STUDENTS.items():
        student = setting.make(mechanism)
        start = student.init(own)
        learns = is_map(student, start)
        start = taken_over(teacher, student, params, start)
        if name == "distilled":
            start = distilled(setting, student, params, start, learns, data, plans.distillation)
        weights = student_weights(name, student.module(start), layers, causal=causal)
        found[f"divergence_{name}"] = jnp.stack(
            [divergence(a, b) for a, b in zip(goal, weights, strict=True)]
        )
        found[f"weights_{name}"] = of_one(weights)
        _, found[f"accuracy_{name}"] = train(
            lambda *given, student=student: setting.loss(student, *given),
            setting.draw,
            start,
            data,
            plans.fine_tuning,
            lambda params, student=student: setting.accuracy(student, params),
        )
    return found


def all_converted(
    run: Run, name: str, setting: Setting, taught: Any, seed: int, plans: Any
) -> dict[str, np.ndarray]:
    """`converted` of every teacher, `[seeds, ...]`."""
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), 64)))
    leaves = jax.tree.map(np.asarray, taught)
    cells = [
        {"params": [leaf[i] for leaf in leaves], "key": keys[i]} for i in range(len(leaves[0]))
    ]

    def one(cell):
        return converted(setting, cell["params"], jax.random.wrap_key_data(cell["key"]), plans)

    return sweep(run, name, one, cells)
