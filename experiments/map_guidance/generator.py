"""The generator: trained on captioned scenes, and sampled with guidance of several kinds."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from experiments.functional import Model, as_functions, optimizer
from jattn import lens
from jattn.diffusion import classifier_free, sample, velocity_loss
from jattn.lens.methods.guidance import guide, soft_identity
from jattn.losses.attention_maps import diversity, retention, segregation
from jattn.nn import DiffusionTransformer, DiffusionTransformerConfig
from jattn.tasks import scenes
from jattn.training import Run, fit

EMPTY = 0.15  # share of captions that training hides
EARLY = 0.6  # share of the steps, from the first on, in which images are moved
COVERED = 0.5  # of a map's maximum: where it is high


class Captions(NamedTuple):
    """What is asked for.

    Attributes:
        words: `[n, 7]`.
        objects: `[n, 3, 2]`.
        noise: that images start from, `[n, 24, 24, 3]`.
    """

    words: Int[Array, "n 7"]
    objects: Int[Array, "n 3 2"]
    noise: Float[Array, "n 24 24 3"]


class Guidance(NamedTuple):
    """How images are led; arrays, so that one program serves all.

    Attributes:
        weight: of guidance without a classifier, towards the caption.
        separate: step along the gradient of A-STAR's segregation, in units of the image's noise.
        retain: weight of its retention beside that.
        cosine: weight of the mean cosine of maps, instead of segregation.
        perturbed: weight of guidance away from perturbed heads.
        heads: strength of each, `[L, h]`.
    """

    weight: Float[Array, ""]
    separate: Float[Array, ""]
    retain: Float[Array, ""]
    cosine: Float[Array, ""]
    perturbed: Float[Array, ""]
    heads: Float[Array, "L h"]


def no_guidance(config) -> Guidance:
    """Towards the caption, and nothing else."""
    zero = jnp.zeros(())
    heads = jnp.zeros((config.layers, config.heads))
    return Guidance(jnp.float32(config.guidance), zero, zero, zero, zero, heads)


def sizes_of(config) -> DiffusionTransformerConfig:
    """What the denoiser is made of."""
    return DiffusionTransformerConfig(
        vocab_size=scenes.VOCABULARY, caption=scenes.CAPTION, height=scenes.SIDE,
        width=scenes.SIDE, patch=config.patch, dim=config.dim, heads=config.heads,
        layers=config.layers, mechanisms=config.mechanism,
    )  # fmt: skip


def model_of(sizes: DiffusionTransformerConfig) -> Model:
    """The denoiser as pure functions."""
    return as_functions(lambda rngs: DiffusionTransformer(sizes, rngs=rngs))


def trained(run: Run, config) -> list[Array]:
    """Parameters of a generator that has seen scenes of one to three objects."""
    model = model_of(sizes_of(config))

    def draw(key):
        of_scene, of_noise, of_time, of_empty = jax.random.split(key, 4)
        scene = scenes.sample_scene(of_scene)
        hide = jax.random.bernoulli(of_empty, EMPTY)
        words = jnp.where(hide, scenes.empty_caption(), scene.caption)
        noise = jax.random.normal(of_noise, scene.image.shape)
        return scene.image, words, noise, jax.random.uniform(of_time)

    def loss(params, batch):
        images, words, noise, time = batch
        predict = lambda x, time: model.module(params)(x, time, words)
        return velocity_loss(predict, images, noise, time)

    found = fit(
        model.init, loss, draw, optimizer(config.learning_rate, config.steps), run=run,
        name="generator", seeds=1, steps=config.steps, batch_size=config.batch_size,
        seed=config.seed, log_every=max(config.steps // 20, 1),
    )  # fmt: skip
    return [leaf[0] for leaf in found.params]


def captions(key: jax.Array, count: int, objects: int) -> Captions:
    """Captions that name so many objects, and noise."""
    of_scene, of_noise = jax.random.split(key)
    draw = jax.vmap(lambda k: scenes.sample_scene(k, objects, objects))
    scene = draw(jax.random.split(of_scene, count))
    return Captions(scene.caption, scene.objects, jax.random.normal(of_noise, scene.image.shape))


def maps_of(probs: Float[Array, "L b h n w"]) -> Float[Array, "b k n"]:
    """The map of each object that can be named: of its two words, mean over layers and heads."""
    mean = probs.mean((0, 2))
    return (mean[..., 1::2] + mean[..., 2::2]).swapaxes(1, 2)


def overlap(maps: Float[Array, "b k n"]) -> Float[Array, " b"]:
    """Mean soft overlap of the maps of two objects."""
    k = maps.shape[1]
    return segregation(maps) / (k * (k - 1) / 2)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _images(sizes, steps, moves, perturbs, params, words, noise, guidance):
    module = model_of(sizes).module(params)
    empty = jnp.broadcast_to(scenes.empty_caption(), words.shape)
    look = lens.Looked(record=("probs",))

    def maps(x, time):
        return maps_of(lens.run_denoiser(module, x, time, words, cross=look)[2]["probs"])

    def predict(x, time, step):
        twice = lambda y: jnp.concatenate([y, y])
        both = module(twice(x), twice(time), jnp.concatenate([words, empty]))
        wanted, without = jnp.split(both, 2)
        led = classifier_free(wanted, without, guidance.weight)
        if not perturbs:
            return led
        weak = lens.Looked([soft_identity(guidance.heads)])
        perturbed = lens.run_denoiser(module, x, time, words, itself=weak)[0]
        return led + guide(wanted, perturbed, guidance.perturbed) - wanted

    def adjust(x, time, step, before):
        def loss(x):
            now = maps(x, time)
            kept = retention(now, before) * (step > 0)
            apart = segregation(now) * (1 - guidance.cosine) + diversity(now) * guidance.cosine
            return (apart + guidance.retain * kept).sum(), now

        slope, now = jax.grad(loss, has_aux=True)(x)
        size = jnp.sqrt((slope**2).mean((1, 2, 3), keepdims=True))
        rate = guidance.separate * (step < EARLY * steps)
        high = now > COVERED * now.max(-1, keepdims=True)
        return x - rate * slope / jnp.maximum(size, 1e-12), high.astype(x.dtype)

    cells = jnp.zeros((len(words), scenes.OBJECTS, sizes.grid[0] * sizes.grid[1]))
    options: Any = dict(adjust=adjust, memory=cells) if moves else {}
    images = sample(predict, noise, steps=steps, **options)
    # What is looked at in the end: maps of the image as it came out, with a little noise left.
    return images, maps(images, jnp.full(len(words), 1 / steps))


def images(
    config: Any, params: list[Array], asked: Captions, guidance: Guidance, *, moves: bool = False,
    perturbs: bool = False,
) -> tuple[Float[Array, "n 24 24 3"], Float[Array, "n 3 cells"]]:  # fmt: skip
    """Images of captions, and the maps of their objects in the last step.

    Args:
        config: of the experiment.
        params: of the generator.
        asked: what for.
        guidance: how images are led.
        moves: noisy images are moved along gradients; without it that guidance is not computed.
        perturbs: there is guidance away from perturbed heads; the same.
    """
    own = params, asked.words, asked.noise, guidance
    return _images(sizes_of(config), config.sampling_steps, moves, perturbs, *own)
