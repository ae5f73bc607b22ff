"""Areas that ask where to look, against maps that know no image, and a ridge map of everything."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.classifier_arms import each_seed, init_of
from experiments.functional import as_functions
from experiments.plots import COLORS, label, panels
from jattn.mechanisms.pooling import brain_encoder
from jattn.nn import Pool
from jattn.tasks.made_cortex import AREAS, SeenImages, made_cortex, seen_image
from jattn.theory.predictivity import ridge
from jattn.training import Claim, Paper, Run, UsageError, fit

PAPER = Paper("arXiv 2505.17329", "Transformer brain encoders")
ATTENTION, MAP, RIDGE = "attention", "map", "ridge"
PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)


class Readout(nnx.Module):
    """Tokens of areas, by queries or by maps, and what each area's voxels say of theirs."""

    def __init__(self, by: str, grid: tuple[int, int], dim: int, voxels: int, rngs: nnx.Rngs):
        self.grid, self.dim = grid, dim
        if by == ATTENTION:
            self.pool = Pool("brain_encoder", dim=dim, areas=len(AREAS), grid=grid, rngs=rngs)
        else:
            self.maps = nnx.Param(jnp.zeros((len(AREAS), grid[0] * grid[1])))
        initial = jax.random.normal(rngs.params(), (len(AREAS), dim, voxels)) / dim**0.5
        self.weight = nnx.Param(initial)
        self.bias = nnx.Param(jnp.zeros((len(AREAS), voxels)))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Responses `[b, areas, voxels]`."""
        if hasattr(self, "pool"):
            read = self.pool(tokens)
        else:
            read = brain_encoder.spatial_map_readout(tokens, self.maps[...])
        return jnp.einsum("bac,acv->bav", read, self.weight[...]) + self.bias[...]

    def looks(self, tokens: jax.Array) -> jax.Array:
        """Where each area looks, `[b, areas, n]`."""
        if not hasattr(self, "pool"):
            maps = jax.nn.softmax(self.maps[...], axis=-1)
            return jnp.broadcast_to(maps, (len(tokens), *maps.shape))
        positions = brain_encoder.grid_positions(self.grid, self.dim)
        return brain_encoder.routing(self.pool.arrays(), tokens, positions=positions)[:, 0]


def routing(run: Run, config) -> list[Claim]:
    """Trains both readouts side by side, fits the ridge map, and compares them on new images."""
    settings = config.routing
    grid = (settings.rows, settings.columns)
    place = (settings.rows // 3, settings.columns // 3)
    sizes: Any = dict(rows=grid[0], columns=grid[1], place=place, noise=settings.noise)
    try:
        cortex = made_cortex(jax.random.key(config.seed), dim=settings.dim, voxels=settings.voxels)
        draw = lambda key: seen_image(key, cortex, **sizes)
        models = {
            by: as_functions(lambda rngs, by=by: Readout(by, grid, settings.dim, settings.voxels,
                                                         rngs))
            for by in (ATTENTION, MAP)
        }  # fmt: skip
        jax.eval_shape(draw, jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"routing.{error}") from None
    of_train, of_test = jax.random.split(jax.random.key(config.seed + 1))

    def sample(key):
        """One of the training images, which are drawn again each time: the same key, the same."""
        return draw(jax.random.fold_in(of_train, jax.random.randint(key, (), 0, settings.images)))

    def loss(params, batch):
        errors = {
            by: ((model.module(params[by])(batch.tokens) - batch.responses) ** 2).mean()
            for by, model in models.items()
        }
        return sum(errors.values(), jnp.zeros(()))

    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    params = fit(
        init_of(models), loss, sample, optax.adamw(rate, weight_decay=1e-4), run=run,
        name="routing", seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=max(settings.steps // 10, 1),
    ).params  # fmt: skip
    index = jax.vmap(jax.random.fold_in, (None, 0))
    train = jax.jit(jax.vmap(draw))(index(of_train, jnp.arange(settings.images)))
    test = jax.jit(jax.vmap(draw))(index(of_test, jnp.arange(settings.test)))
    found = run.cached("routing", lambda: _explained(models, params, test))
    found |= run.cached("ridge", lambda: {RIDGE: _ridge(train, test, config.seeds)})
    mass = run.cached("mass", lambda: _mass(models, params, test))
    for name, values in found.items():
        text = ", ".join(f"{a} {v:.3f}" for a, v in zip(AREAS, values.mean(0), strict=True))
        run.note(f"{name}: explained variance of areas {text}")
    _draw(run, found, mass)
    _draw_looks(run, models, params, test, grid)
    return _claims(found, mass, grid[0] * grid[1])


def _share(errors: Any, targets: Any) -> Any:
    """R^2 of each area, the mean over its voxels."""
    spread = ((targets - targets.mean(0)) ** 2).sum(0)
    return (1 - (errors**2).sum(0) / spread).mean(-1)


def _explained(models, params, test: SeenImages) -> dict[str, np.ndarray]:
    """R^2 by readout, `[seeds, areas]`."""

    @jax.jit
    def measure(params, test):
        return {
            by: _share(model.module(params[by])(test.tokens) - test.responses, test.responses)
            for by, model in models.items()
        }

    return each_seed(lambda own: measure(own, test), params)


def _ridge(train: SeenImages, test: SeenImages, seeds: int) -> np.ndarray:
    """R^2 of a ridge map of all features, its penalty chosen for each area on a fifth of images."""
    flat = lambda seen: (seen.tokens.reshape(len(seen.tokens), -1),
                         seen.responses.reshape(len(seen.responses), -1))  # fmt: skip
    x, y = flat(train)
    shape = test.responses.shape[1:]
    kept = len(x) * 4 // 5

    @jax.jit
    def fitted(x, y, unseen, targets, penalty):
        weights, bias = ridge(x, y, penalty)
        guess = (unseen @ weights + bias).reshape(-1, *shape)
        return _share(guess - targets.reshape(-1, *shape), targets.reshape(-1, *shape))

    held = [np.asarray(fitted(x[:kept], y[:kept], x[kept:], y[kept:], p)) for p in PENALTIES]
    whole = [np.asarray(fitted(x, y, *flat(test), p)) for p in PENALTIES]
    best = np.stack(held).argmax(0)
    return np.tile(np.stack(whole)[best, np.arange(shape[0])], (seeds, 1))


def _mass(models, params, test: SeenImages) -> dict[str, np.ndarray]:
    """How much of each area's look is on the token that it reads, `[seeds, areas]`."""

    @jax.jit
    def measure(params, test):
        found = {}
        for by, model in models.items():
            looks = model.module(params[by]).looks(test.tokens)
            found[by] = jnp.take_along_axis(looks, test.sources[..., None], -1)[..., 0].mean(0)
        return found

    return each_seed(lambda own: measure(own, test), params)


def _claims(found: dict[str, np.ndarray], mass: dict[str, np.ndarray], tokens: int) -> list[Claim]:
    def gain(over: str, area: str) -> Any:
        values = (found[ATTENTION] - found[over])[:, AREAS.index(area)]
        return dict(measured=float(np.median(values)), seeds=values)

    before = "that was expected of it before training"
    claims = [
        PAPER.claim(
            f"{area}-over-{over}", f"where an area reads by {area}, a query explains more than "
            f"{words}: difference of R^2", 0.3, relation=">=", because=before, **gain(over, area),
        )
        for area in ("content", "both")
        for over, words in ((MAP, "a map that knows no image"), (RIDGE, "ridge regression"))
    ]  # fmt: skip
    claims.append(
        PAPER.claim(
            "place", "where an area reads by place, a map is as good: difference of R^2", 0.0,
            relation="~=", tolerance=0.05, because=before, **gain(MAP, "place"),
        )
    )  # fmt: skip
    looks = mass[ATTENTION].min(1)
    claims.append(
        PAPER.claim(
            "looks", "each area's query looks at the token that its voxels read: least share",
            0.5, float(np.median(looks)), ">=", because="half of it is more than any other has",
            seeds=looks,
            note=", ".join(f"{a} {m:.2f}" for a, m in zip(AREAS, mass[ATTENTION].mean(0),
                                                          strict=True)),
        )
    )  # fmt: skip
    blind = found[MAP][:, AREAS.index("content")]
    claims.append(
        PAPER.claim(
            "uniform", "a map finds a token that may be anywhere by its share of the places: R^2",
            1 / tokens, float(np.median(blind)), "~=", 0.03, derived=True, seeds=blind,
        )
    )  # fmt: skip
    return claims


def _draw(run: Run, found: dict[str, np.ndarray], mass: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.6)
    for axis, values, name in (
        (axes[0, 0], found, "R^2 on new images"),
        (axes[0, 1], mass, "share of the look on the right token"),
    ):
        width = 0.8 / len(values)
        for row, (arm, each) in enumerate(values.items()):
            x = np.arange(len(AREAS)) + (row - (len(values) - 1) / 2) * width
            axis.bar(x, each.mean(0), width, color=COLORS[row], label=arm, alpha=0.7)
            axis.plot(x, each.T, "o", ms=2, color="black")
        axis.set_xticks(range(len(AREAS)), AREAS)
        axis.axhline(0, color="black", linewidth=0.6)
        label(axis, "what an area reads by", name)
    run.save_figure(
        figure, "routing", "What queries of areas, maps and ridge regression explain of voxels "
        "that read by place, by content, or by both; dots are seeds.",
    )  # fmt: skip


def _draw_looks(run: Run, models, params, test: SeenImages, grid: tuple[int, int]) -> None:
    first = jax.tree.map(lambda leaf: leaf[0], params[ATTENTION])
    looks = np.asarray(models[ATTENTION].module(first).looks(test.tokens[:5]))
    figure, axes = panels(len(AREAS), len(looks), width=1.1, height=1.2)
    for (area, image), axis in np.ndenumerate(axes):
        axis.imshow(looks[image, area].reshape(grid), cmap="Blues", vmin=0)
        row, column = divmod(int(test.sources[image, area]), grid[1])
        axis.plot(column, row, "s", ms=9, mfc="none", color=COLORS[1])
        axis.set_xticks([])
        axis.set_yticks([])
        if image == 0:
            axis.set_ylabel(AREAS[area])
    run.save_figure(
        figure, "looks", "Where the query of each area looks in five new images (seed 0), and the "
        "token that its voxels read (frame).",
    )  # fmt: skip
