"""Encoders that learn from single frames or from clips, and dynamics of their latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.functional import Model, as_functions, optimizer
from jattn.losses.time_contrast import time_contrast
from jattn.nn.blocks import Block
from jattn.nn.mixer import Mixer
from jattn.systems.latent_dynamics import init_continuous_rnn, next_latent
from jattn.tasks.pong import pong
from jattn.training import Run, fit

ENCODERS = ("random", "static", "dynamic")
DYNAMICS = ("continuous RNN", "attention")
PATCH, MASKED = 4, 0.5


class Encoder(nnx.Module):
    """A vision transformer to a latent, and a linear map back to pixels."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        self.side, patches = config.side // PATCH, (config.side // PATCH) ** 2
        self.patches = nnx.Linear(PATCH**2, config.dim, rngs=rngs)
        self.places = nnx.Embed(patches, config.dim, rngs=rngs)
        mixer = lambda: Mixer("softmax_attention", dim=config.dim, heads=config.heads, rngs=rngs)
        blocks = [Block(mixer(), config.dim, 2.0, rngs=rngs) for _ in range(config.layers)]
        self.blocks = nnx.List(blocks)
        self.norm = nnx.RMSNorm(config.dim, rngs=rngs)
        self.latent = nnx.Linear(config.dim * patches, config.latent, rngs=rngs)
        self.pixels = nnx.Linear(config.latent, config.side**2, rngs=rngs)

    def __call__(self, frames: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """Latents `[b, m]` of frames `[b, side, side]`; patches that are not kept are dark."""
        b, s = frames.shape[0], self.side
        split = frames.reshape(b, s, PATCH, s, PATCH).transpose(0, 1, 3, 2, 4).reshape(b, s * s, -1)
        split = split if kept is None else split * kept[..., None]
        x = self.patches(split) + self.places(jnp.arange(s * s))
        for block in self.blocks:
            x = block(x)
        return self.latent(self.norm(x).reshape(b, -1))


class NextLatent(nnx.Module):
    """Causal attention over the latents of a window; the last one's output is the next latent."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        self.embed = nnx.Linear(config.latent, config.dim, rngs=rngs)
        self.places = nnx.Embed(config.past, config.dim, rngs=rngs)
        mixer = Mixer(
            "softmax_attention", dim=config.dim, heads=config.heads, causal=True, rngs=rngs
        )
        self.block = Block(mixer, config.dim, 2.0, rngs=rngs)
        self.head = nnx.Linear(config.dim, config.latent, rngs=rngs)

    def __call__(self, window: jax.Array) -> jax.Array:
        """`[t, m] -> [m]`: the last latent and a change of it."""
        x = self.embed(window)[None] + self.places(jnp.arange(len(window)))
        return window[-1] + self.head(self.block(x))[0, -1]


class Dynamics(NamedTuple):
    """A one-step map of latents.

    Attributes:
        init: `(key) -> params`.
        step: `(params, window) -> ` next latent.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[Any, jax.Array], jax.Array]


def dynamics_of(config, name: str) -> Dynamics:
    """Dynamics by name."""
    if name == "attention":
        model = as_functions(lambda rngs: NextLatent(config, rngs=rngs))
        return Dynamics(model.init, lambda params, window: model.module(params)(window))
    return Dynamics(
        lambda key: init_continuous_rnn(key, config.latent, config.hidden),
        lambda params, window: window[-1] + next_latent(params, window, tau=config.tau),
    )


def one_clip(config, key: jax.Array) -> jax.Array:
    """Frames `[t, side, side]` of a clip in which nothing is hidden."""
    clip = pong(
        key, 1, frames=config.frames, side=config.side, occluder=9.0, clutter=config.clutter
    )
    return clip.frames[0]


def encoder(run: Run, config, name: str, seed: int) -> tuple[Model, Any]:
    """An encoder, and its parameters after its training."""
    model = as_functions(lambda rngs: Encoder(config, rngs=rngs))

    def sample(key):
        of_clip, of_other, of_frames, of_mask = jax.random.split(key, 4)
        clip, other = one_clip(config, of_clip), one_clip(config, of_other)
        i, j, k = jnp.sort(jax.random.choice(of_frames, config.frames, (3,), replace=False))
        kept = jax.random.bernoulli(of_mask, 1 - MASKED, ((config.side // PATCH) ** 2,))
        return clip[jnp.stack([i, j, k])], other[j], kept

    def static(params, batch):
        frames, _, kept = batch
        module = model.module(params)
        seen = frames[:, 0]
        drawn = module.pixels(module(seen, kept))
        return ((drawn - seen.reshape(len(seen), -1)) ** 2).sum(-1).mean()

    def dynamic(params, batch):
        frames, other, _ = batch
        module = model.module(params)
        first, near, far = (module(frames[:, n]) for n in range(3))
        return time_contrast(first, near, far, module(other)).mean()

    if name == "random":
        return model, model.init(jax.random.key(config.seed + seed))
    loss = static if name == "static" else dynamic
    params = fit(
        model.init, loss, sample, optimizer(config.learning_rate, config.encoder_steps), run=run,
        name=f"{name}_{seed}", seeds=1, steps=config.encoder_steps, batch_size=config.batch_size,
        seed=config.seed + seed, log_every=max(config.encoder_steps // 10, 1),
    ).params  # fmt: skip
    return model, jax.tree.map(lambda leaf: leaf[0], params)


class Latent(NamedTuple):
    """A frozen encoder whose latents have unit spread.

    Attributes:
        encode: frames `[..., side, side]` to latents `[..., m]`.
    """

    encode: Callable[[jax.Array], jax.Array]


def frozen(config, model: Model, params: Any, seed: int) -> Latent:
    """The encoder with latents centred and scaled over clips of its world."""

    def plain(frames):
        flat = frames.reshape(-1, *frames.shape[-2:])
        return model.module(params)(flat).reshape(*frames.shape[:-2], -1)

    keys = jax.random.split(jax.random.key(config.seed + seed + 17), 64)
    some = jax.jit(lambda keys: plain(jax.vmap(lambda k: one_clip(config, k))(keys)))(keys)
    centre, spread = some.mean((0, 1)), some.std((0, 1))
    spread = jnp.where(spread > 1e-4, spread, 1.0)
    return Latent(lambda frames: (plain(frames) - centre) / spread)


def trained_dynamics(run: Run, config, name: str, latent: Latent, label: str, seed: int):
    """Dynamics that predict the next latent of clips from the `past` ones before it."""
    dynamics = dynamics_of(config, name)

    def sample(key):
        of_clip, of_start = jax.random.split(key)
        clip = one_clip(config, of_clip)
        start = jax.random.randint(of_start, (), 0, config.frames - config.past)
        return jax.lax.dynamic_slice_in_dim(clip, start, config.past + 1)

    def loss(params, clips):
        latents = jax.lax.stop_gradient(latent.encode(clips))
        predicted = jax.vmap(lambda window: dynamics.step(params, window))(latents[:, :-1])
        return ((predicted - latents[:, -1]) ** 2).mean()

    params = fit(
        dynamics.init, loss, sample, optimizer(config.learning_rate, config.steps), run=run,
        name=label, seeds=1, steps=config.steps, batch_size=config.batch_size,
        seed=config.seed + seed, log_every=max(config.steps // 10, 1),
    ).params  # fmt: skip
    one = jax.tree.map(lambda leaf: leaf[0], params)
    return lambda window: dynamics.step(one, window)


def simulated(step: Callable, latents: jax.Array, visible: jax.Array, past: int) -> jax.Array:
    """Latents while the ball is seen, and the step's own predictions from then on, `[t, m]`.

    Args:
        step: from a window of the last `past` latents to the next one.
        latents: of the frames of one clip; those in which the ball is hidden are not looked at.
        visible: whether it is seen, at first for at least `past` frames.
        past: length of the window.
    """

    def one(window, now):
        seen, is_seen = now
        new = jnp.where(is_seen, seen, step(window))
        return jnp.concatenate([window[1:], new[None]]), new

    start = jnp.broadcast_to(latents[0], (past, latents.shape[1]))
    return jax.lax.scan(one, start, (latents, visible))[1]
