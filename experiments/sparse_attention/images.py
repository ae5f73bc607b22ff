"""Images: halos across borders of blocks, connectivity that is learnt, and gates of lines."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import optimizer
from experiments.sparse_attention.networks import layers_init, of_seed, run_layers
from jattn import attend, zoo
from jattn.extremes import largest
from jattn.mechanisms.layers.affine import affine, affine_init, norm, norm_init
from jattn.mechanisms.layers.convolutions import convolution
from jattn.mechanisms.sparse import halo_attention as halo
from jattn.mechanisms.sparse import sparsifiner
from jattn.tasks.images import images
from jattn.training import Claim, Paper, Run, fit

HALO = Paper("arXiv 2103.12731", "Scaling local self-attention")
LEARNED = Paper("arXiv 2303.13755", "Sparsifiner")
LINES = Paper("arXiv 2403.01123", "ELA: efficient local attention")
SIDE, BLOCK = 16, 4


def halos(run: Run, config) -> list[Claim]:
    """Pairs of marks on both sides of a border: with a halo, and without."""
    settings = config.halos
    wide, none = (_pairs(run, config, width) for width in (settings.halo, 0))
    return [
        HALO.claim("halo-crosses", f"a halo of {settings.halo} cells tells how far apart two marks "
                   "are that a border of blocks divides: gain in accuracy over none", 0.15,
                   float(np.median(wide - none)), ">=", because="chance is 0.5",
                   note=f"{wide.mean():.3f}, without {none.mean():.3f}", seeds=wide - none)
    ]  # fmt: skip


def marks(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An image with two marks 2 or 3 cells apart along a row, which a border divides; and which."""
    of_row, of_border, of_label, of_shift = jax.random.split(key, 4)
    apart = 2 + jax.random.bernoulli(of_label).astype(int)
    border = BLOCK * jax.random.randint(of_border, (), 1, SIDE // BLOCK)
    first = border - 1 - jax.random.randint(of_shift, (), 0, apart)
    row = jax.random.randint(of_row, (), 0, SIDE)
    image = jnp.zeros((SIDE, SIDE)).at[row, first].set(1.0).at[row, first + apart].set(1.0)
    return image, apart - 2


def _pairs(run: Run, config, width: int) -> np.ndarray:
    """Accuracy `[seeds]` of two layers of blocked attention with a halo of that width."""
    settings = config.halos
    dim, heads = settings.dim, settings.heads
    reach = 2 * (BLOCK + 2 * width) - 1

    def init(key):
        of_layers, of_tables, of_input, of_output = jax.random.split(key, 4)
        return {
            "input": affine_init(of_input, 2, dim), "norm": norm_init(dim),
            "output": affine_init(of_output, dim, 2),
            "layers": layers_init(of_layers, dim, heads, 2),
            "tables": jax.random.normal(of_tables, (2, 2, reach, dim // heads)) * heads**-0.5,
        }  # fmt: skip

    def logits(params, image):
        # An empty cell is no vector of zeros: layer norm would blow its gradient up.
        cells = image.reshape(len(image), -1, 1)
        x = affine(params["input"], jnp.concatenate([cells, 1 - cells], -1))

        def attention(layer, *projected):
            query, key, value = (y.reshape(len(y), SIDE, SIDE, *y.shape[2:]) for y in projected)
            out = halo.halo_attention(
                query, key, value, *params["tables"][layer], block=BLOCK, halo=width
            )
            return out.reshape(projected[0].shape)

        x = run_layers(params["layers"], x, heads, attention)
        return affine(params["output"], largest(norm(params["norm"], x), 1)[:, 0])

    return _classifier(run, config, settings, f"halo_{width}", init, logits, marks)


def _classifier(run: Run, config, settings, name: str, init, logits, sample) -> np.ndarray:
    """Accuracy `[seeds]` on fresh images."""

    def loss(params, batch):
        image, label = batch
        each = optax.softmax_cross_entropy_with_integer_labels(logits(params, image), label)
        return each.mean()

    params = _fit(run, config, settings, name, init, loss, sample)

    def accuracy():
        image, label = _fresh(config, sample)
        test = jax.jit(lambda params: (logits(params, image).argmax(-1) == label).mean())
        return {"accuracy": np.array([test(of_seed(params, i)) for i in range(config.seeds)])}

    return run.cached(name, accuracy)["accuracy"]


def connectivity(run: Run, config) -> list[Claim]:
    """Attention of a classifier of digits: its mass on keys that a predictor keeps."""
    found = _connectivity(run, config)
    learnt = found["learnt"]
    note = ", ".join(f"{name} {values.mean():.3f}" for name, values in found.items())
    return [
        LEARNED.claim(f"connectivity-{name}", f"of a teacher's attention, a learned quarter of the "
                      f"keys holds more than {what}: difference of masses", margin,
                      float(np.median(learnt - found[name])), ">", because="of the same size",
                      note=note, seeds=learnt - found[name])
        for name, what, margin in (
            ("near", "the nearest cells", 0.05), ("random", "random cells", 0.25)
        )
    ]  # fmt: skip


def _connectivity(run: Run, config) -> dict[str, np.ndarray]:
    settings = config.connectivity
    dim, heads, layers, keep = settings.dim, settings.heads, settings.layers, 0.25
    digits = images("digits")
    pixels, labels = (
        jnp.asarray(digits.train[..., 0], jnp.float32),
        jnp.asarray(digits.train_labels),
    )
    cells = pixels[0].size

    def init(key):
        of_layers, of_input, of_places, of_output = jax.random.split(key, 4)
        return {
            "input": affine_init(of_input, 1, dim), "norm": norm_init(dim),
            "output": affine_init(of_output, dim, 10),
            "places": 0.5 * jax.random.normal(of_places, (cells + 1, dim)),
            "layers": layers_init(of_layers, dim, heads, layers),
        }  # fmt: skip

    def logits(params, image, seen=None):
        x = affine(params["input"], image.reshape(len(image), -1, 1))
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 0))) + params["places"]

        def attention(layer, query, key, value):
            if seen is None:
                return attend(query, key, value)
            out, weights = attend(query, key, value, return_weights=True)
            seen.append((query, key, weights))
            return out

        x = run_layers(params["layers"], x, heads, attention)
        return affine(params["output"], norm(params["norm"], x[:, 0]))

    def sample(key):
        index = jax.random.randint(key, (), 0, len(pixels))
        return pixels[index], labels[index]

    def classify(params, batch):
        each = optax.softmax_cross_entropy_with_integer_labels(logits(params, batch[0]), batch[1])
        return each.mean()

    teachers = _fit(run, config, settings, "teacher", init, classify, sample)
    test = jnp.asarray(digits.test[..., 0], jnp.float32)
    rows = []
    for seed in range(config.seeds):
        teacher = of_seed(teachers, seed)

        def predictors(key):
            keys = jax.random.split(key, layers)
            make = lambda k: sparsifiner.init(k, tokens=cells + 1, head_dim=dim // heads)
            return [make(k) for k in keys]

        def predict(params, image, teacher=teacher):
            seen: list = []
            logits(teacher, image, seen)
            return [
                (sparsifiner.predict(own, query, key, keep=keep), weights)
                for own, (query, key, weights) in zip(params, seen, strict=True)
            ]

        def loss(params, batch):
            pairs = zip(params, predict(params, batch[0]), strict=True)
            each = [sparsifiner.connectivity_loss(own, *found) for own, found in pairs]
            return sum(each, jnp.float32(0))

        found = fit(
            predictors, loss, sample, optax.adam(settings.learning_rate), run=run,
            name=f"predictor_{seed}", seeds=1, steps=settings.predictor_steps,
            batch_size=settings.batch_size, seed=config.seed + seed,
            log_every=settings.predictor_steps // 10,
        ).params  # fmt: skip

        def measured(found=found, predict=predict):
            masses = jax.jit(lambda params: _masses(predict(params, test), cells, keep))
            return {name: np.asarray(x) for name, x in masses(of_seed(found, 0)).items()}

        rows.append(run.cached(f"connectivity_{seed}", measured))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _masses(predicted, cells: int, keep: float) -> dict[str, jax.Array]:
    """Mass of weights on learnt, near and random keys of every query but the class token's."""
    count, side = int(np.ceil(keep * (cells + 1))), int(cells**0.5)
    row, column = np.divmod(np.arange(cells), side)
    distance = np.hypot(row[:, None] - row, column[:, None] - column)
    # The class token is the nearest of all: a window that left it out would lose its mass.
    distance = np.concatenate([np.full((cells, 1), -1.0), distance], 1)
    rank = np.argsort(np.argsort(distance, axis=1, kind="stable"), axis=1)
    chance = np.argsort(np.random.default_rng(0).random(distance.shape), axis=1)
    mass = lambda masks: jnp.stack(
        [
            (weights[:, :, 1:] * mask).sum(-1).mean()
            for mask, (_, weights) in zip(masks, predicted, strict=True)
        ]
    ).mean()  # fmt: skip
    return {
        "learnt": mass([found.mask[:, :, 1:] for found, _ in predicted]),
        "near": mass([rank < count] * len(predicted)),
        "random": mass([chance < count] * len(predicted)),
    }


def lines(run: Run, config) -> list[Claim]:
    """Where is a bright bar? A small convolutional network, with a gate of lines and without."""
    found = {name: _bars(run, config, name) for name in ("none", "efficient_local_attention")}
    plain, gated = found.values()
    ratio = gated["error"] / plain["error"]
    more = float(gated["parameters"] / plain["parameters"]) - 1
    return [
        LINES.claim("lines-find", "a gate of lines lowers the error of a bar's row: ratio", 0.8,
                    float(np.median(ratio)), "<=", because="a fifth is clearly less",
                    note=f"{gated['error'].mean():.3f} rows, without {plain['error'].mean():.3f}",
                    seeds=ratio),
        LINES.claim("lines-few", "for few parameters: share that is added", 0.05, more, "<",
                    because="a twentieth is little"),
    ]  # fmt: skip


def bars(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A noisy image with a bright bar of 6 cells along a row; and the row."""
    of_row, of_column, of_noise = jax.random.split(key, 3)
    row = jax.random.randint(of_row, (), 0, SIDE)
    column = jax.random.randint(of_column, (), 0, SIDE - 5)
    y, x = jnp.mgrid[:SIDE, :SIDE]
    bar = (y == row) & (x >= column) & (x < column + 6)
    return 0.5 * jax.random.normal(of_noise, (SIDE, SIDE)) + bar, row.astype(float)


def _bars(run: Run, config, name: str) -> dict[str, np.ndarray]:
    settings = config.lines
    dim = settings.dim
    gate = None if name == "none" else zoo.make(name, dim=dim, width=5, norm_groups=dim)

    def init(key):
        of_first, of_second, of_gate, of_output = jax.random.split(key, 4)
        return {
            "first": jax.random.normal(of_first, (3, 3, 1, dim)) / 3,
            "second": jax.random.normal(of_second, (3, 3, dim, dim)) / (3 * dim**0.5),
            "gate": {} if gate is None else gate.init(of_gate),
            "output": affine_init(of_output, dim, 1),
        }

    def row(params, image):
        x = jax.nn.relu(convolution(image[..., None], params["first"]))
        if gate is not None:
            x = gate.apply(params["gate"], x)
        x = jax.nn.relu(convolution(x, params["second"]))
        return affine(params["output"], x.mean((1, 2)))[:, 0] + SIDE / 2

    loss = lambda params, batch: ((row(params, batch[0]) - batch[1]) ** 2).mean()
    params = _fit(run, config, settings, f"lines_{name}", init, loss, bars)

    def tested():
        image, place = _fresh(config, bars)
        test = jax.jit(lambda params: jnp.abs(row(params, image) - place).mean())
        one = [of_seed(params, seed) for seed in range(config.seeds)]
        numbers = sum(leaf.size for leaf in jax.tree.leaves(one[0]))
        return {"error": np.array([test(p) for p in one]), "parameters": np.array(numbers)}

    return run.cached(f"lines_{name}", tested)


def _fit(run: Run, config, settings, name: str, init, loss, sample):
    return fit(
        init, loss, sample, optimizer(settings.learning_rate, settings.steps), run=run, name=name,
        seeds=config.seeds, steps=settings.steps, batch_size=settings.batch_size,
        seed=config.seed, log_every=settings.steps // 10,
    ).params  # fmt: skip


def _fresh(config, sample):
    return jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), 512))
