"""World models of one size: reaction and diffusion, a convolutional LSTM, attention.

Each sees a frame and the one before it, keeps a state, and says what comes next.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from experiments.functional import as_functions, as_large
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer
from jattn.systems import fluid_world as fluid
from jattn.systems.fluid_world import from_patches, to_patches

FLUID, LSTM, ATTENTION = "reaction and diffusion", "convolutional LSTM", "attention"
MODELS = (FLUID, LSTM, ATTENTION)


class WorldModel(NamedTuple):
    """A world model.

    Attributes:
        init: `(key) -> params`.
        start: `(batch) -> state` before anything was seen.
        step: `(params, state, frame, frame before) -> (state, next frame)`.
        parameters: how many numbers the parameters are.
    """

    init: Callable[[jax.Array], Any]
    start: Callable[[int], Any]
    step: Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
    parameters: int


def _made(init, start, step) -> WorldModel:
    shapes = jax.eval_shape(init, jax.random.key(0))
    return WorldModel(init, start, step, sum(leaf.size for leaf in jax.tree.leaves(shapes)))


def fluid_world(config) -> WorldModel:
    """FluidWorld; its state is the belief."""
    cells = config.side // config.patch

    def step(params, belief, frame, before):
        z = fluid.encode(params, frame, before, config.patch, steps=config.encoder_steps)
        belief = fluid.write(params, belief, z)
        belief = fluid.evolve_belief(params, belief, steps=config.belief_steps)
        return belief, fluid.read(params, belief, config.patch)

    return _made(
        lambda key: fluid.fluid_world_init(
            key, config.channels, config.patch, layers=config.layers
        ),
        lambda b: jnp.zeros((b, cells, cells, config.channels)),
        step,
    )


def neighbourhoods(x: jax.Array) -> jax.Array:
    """Each cell's 3 x 3 neighbourhood `[b, h, w, 9 c]`; beyond the border there are zeros.

    A convolution by one product, which takes seeds side by side.
    """
    h, w = x.shape[1:3]
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, -1)


class Cell(nnx.Module):
    """A convolutional LSTM over patches (arXiv 1506.04214, without peepholes)."""

    def __init__(self, config, embedded: int, *, rngs: nnx.Rngs):
        pixels, channels = config.patch**2, config.lstm_channels
        self.embed = nnx.Linear(2 * pixels, embedded, rngs=rngs)
        self.gates = nnx.Linear(9 * (embedded + channels), 4 * channels, rngs=rngs)
        self.read = nnx.Linear(channels, pixels, rngs=rngs)

    def __call__(self, state: tuple[jax.Array, jax.Array], seen: jax.Array):
        hidden, memory = state
        both = jnp.concatenate([self.embed(seen), hidden], -1)
        into, keep, out, value = jnp.split(self.gates(neighbourhoods(both)), 4, -1)
        # A forget gate that begins open.
        memory = jax.nn.sigmoid(keep + 1) * memory + jax.nn.sigmoid(into) * jnp.tanh(value)
        hidden = jax.nn.sigmoid(out) * jnp.tanh(memory)
        return (hidden, memory), jax.nn.sigmoid(self.read(hidden))


def convolutional_lstm(config, embedded: int) -> WorldModel:
    """A convolutional LSTM on so many features of a patch."""
    cells = config.side // config.patch
    model = as_functions(lambda rngs: Cell(config, embedded, rngs=rngs))

    def step(params, state, frame, before):
        seen = [to_patches(each, config.patch) for each in (frame, before)]
        state, patches = model.module(params)(state, jnp.concatenate(seen, -1))
        return state, from_patches(patches, config.patch)

    zeros = lambda b: jnp.zeros((b, cells, cells, config.lstm_channels))
    return _made(model.init, lambda b: (zeros(b), zeros(b)), step)


class Tokens(nnx.Module):
    """Attention over the patches of two frames, which are one token; places are learned."""

    def __init__(self, config, hidden: int, *, rngs: nnx.Rngs):
        pixels, dim = config.patch**2, config.dim
        self.embed = nnx.Linear(2 * pixels, dim, rngs=rngs)
        self.places = nnx.Embed((config.side // config.patch) ** 2, dim, rngs=rngs)
        mixer = lambda: Mixer("softmax_attention", dim=dim, heads=config.heads, rngs=rngs)
        blocks = [Block(mixer(), dim, hidden / dim, rngs=rngs) for _ in range(config.blocks)]
        self.blocks = nnx.List(blocks)
        self.norm = nnx.RMSNorm(dim, rngs=rngs)
        self.read = nnx.Linear(dim, pixels, rngs=rngs)

    def __call__(self, seen: jax.Array) -> jax.Array:
        """Patches `[b, n, 2 p]` to the next frame's, `[b, n, p]`."""
        x = self.embed(seen) + self.places(jnp.arange(seen.shape[1]))
        for block in self.blocks:
            x = block(x)
        return jax.nn.sigmoid(self.read(self.norm(x)))


def attention(config, hidden: int) -> WorldModel:
    """A transformer whose MLPs have so many units; it keeps no state but the frame before."""
    model = as_functions(lambda rngs: Tokens(config, hidden, rngs=rngs))

    def step(params, state, frame, before):
        seen = [to_patches(each, config.patch) for each in (frame, before)]
        both = jnp.concatenate(seen, -1)
        b, h, w, _ = both.shape
        patches = model.module(params)(both.reshape(b, h * w, -1))
        return state, from_patches(patches.reshape(b, h, w, -1), config.patch)

    return _made(model.init, lambda b: (), step)


def world_models(config) -> dict[str, WorldModel]:
    """All three, the others as large as FluidWorld."""
    first = fluid_world(config)
    return {
        FLUID: first,
        LSTM: as_large(lambda width: convolutional_lstm(config, width), first.parameters),
        ATTENTION: as_large(lambda width: attention(config, width), first.parameters),
    }


def watched(
    model: WorldModel,
    params: Any,
    frames: jax.Array,
    state: Any = None,
    blind: jax.Array | None = None,
) -> tuple[Any, jax.Array]:
    """What is expected after each frame but the first, all being seen, `[b, t - 1, side, side]`.

    Args:
        model: a world model.
        params: its parameters.
        frames: `[b, t, side, side]`.
        state: to begin with; None: as before anything was seen.
        blind: of each clip, how many steps leave no trace in the state, `[b]`; None: none do.

    Returns:
        The last state, and the frames expected.
    """
    start = model.start(len(frames))
    pairs = (frames[:, 1:].swapaxes(0, 1), frames[:, :-1].swapaxes(0, 1))

    def advance(state, now):
        index, frame, before = now
        after, expected = model.step(params, state, frame, before)
        if blind is not None:
            seeing = index >= blind
            keep = lambda new, old: jnp.where(jnp.expand_dims(seeing, (1, 2, 3)), new, old)
            after = jax.tree.map(keep, after, start)
        return after, expected

    numbers = jnp.arange(frames.shape[1] - 1)
    state, found = lax.scan(advance, start if state is None else state, (numbers, *pairs))
    return state, found.swapaxes(0, 1)


def rolled_out(model: WorldModel, params: Any, frames: jax.Array, steps: int) -> jax.Array:
    """Frames expected after some that are seen, each from those expected before it.

    Args:
        model: a world model.
        params: its parameters.
        frames: that are seen, `[b, t, side, side]`.
        steps: how many more.

    Returns:
        `[b, steps, side, side]`.
    """
    state, seen = watched(model, params, frames)

    def advance(carry, _):
        state, frame, before = carry
        state, after = model.step(params, state, frame, before)
        return (state, after, frame), frame

    start = (state, seen[:, -1], frames[:, -1])
    return lax.scan(advance, start, length=steps)[1].swapaxes(0, 1)
