"""Blocks and tokens that are chosen, on keys whose structure is known: what they keep and lose."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.plots import COLORS, label, panels
from jattn import attend, masks
from jattn.mechanisms.sparse import rectified_attention, recycled_attention, sparsed_attention
from jattn.mechanisms.sparse import token_budget_attention as token_budget
from jattn.mechanisms.sparse.tile_scores import tile_mean_probabilities, top_count
from jattn.training import Claim, Paper, Run

RECTIFIED = Paper("arXiv 2511.19835", "Rectified SpaAttn")
SPARSED = Paper("arXiv 2509.24014", "SparseD: sparse attention for diffusion language models")
RECYCLED = Paper("arXiv 2411.05787", "Recycled attention")
BUDGET = Paper("arXiv 2512.09238", "TCA-Attention")


def blocks(run: Run, config) -> list[Claim]:
    """Blocks chosen by pooled probabilities with compensation, and by one look of each head."""
    keys = jax.random.split(jax.random.key(config.seed), config.draws)
    rectified = run.cached("rectified", lambda: _arrays(jax.jit(jax.vmap(_rectified))(keys)))
    frozen = run.cached("sparsed", lambda: _arrays(jax.jit(jax.vmap(_sparsed))(keys)))
    ratio = rectified["rectified"] / rectified["plain"]
    lost = frozen["frozen"] - frozen["early"]
    _draw(run, "blocks", "What is lost of clustered keys' output, and kept of their mass.",
          {"relative error": rectified, "retained mass": frozen})  # fmt: skip
    return [
        RECTIFIED.claim("rectified", "what is given back for skipped blocks lowers the error of "
                        "block-sparse attention on clustered keys: ratio of relative errors", 0.75,
                        float(np.median(ratio)), "<", because="a quarter is clearly less",
                        note=_means(rectified), seeds=ratio),
        SPARSED.claim("frozen-blocks", "blocks that a head chose early are those that it would "
                      "choose at the last step: intersection over union", 0.85,
                      float(np.median(frozen["overlap"])), ">=", because="most are the same",
                      seeds=frozen["overlap"]),
        SPARSED.claim("own-blocks", "each head's own choice keeps more mass than one for all: "
                      "ratio", 1.3, float(np.median(frozen["frozen"] / frozen["shared"])), ">=",
                      because="a third more is clearly more", note=_means(frozen),
                      seeds=frozen["frozen"] / frozen["shared"]),
        SPARSED.claim("early-blocks", "chosen while all is noise still, they keep less: mass that "
                      "is lost against the later choice", 0.1, float(np.median(lost)), ">=",
                      because="a tenth is noticed", seeds=lost),
    ]  # fmt: skip


def tokens(run: Run, config) -> list[Claim]:
    """Tokens kept by each block's budget, and keys that are read again from step to step."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1), config.draws)
    mu = _centre(BLOCK, SIGMA, KEPT)
    budget = run.cached(
        "token_budget", lambda: _arrays(jax.jit(jax.vmap(lambda key: _budgets(key, mu)))(keys))
    )
    mass = run.cached("recycled", lambda: _arrays(jax.jit(jax.vmap(_recycled))(keys)))
    _draw(run, "tokens", "What is lost where 39 % of tokens are kept, and the mass of as many keys "
          "that are read.", {"relative error": budget, "recovered mass": mass})  # fmt: skip
    ratio = budget["budget"] / budget["stride"]
    return [
        BUDGET.claim("budget-stride", "the most redundant blocks keep fewest tokens, and important "
                     "ones: relative error over that of every few tokens kept", 0.7,
                     float(np.median(ratio)), "<", because="a third less is clearly less",
                     note=_means(budget), seeds=ratio),
        BUDGET.claim("budget-random", "and over that of random ones", 1.0,
                     float(np.median(budget["budget"] / budget["random"])), "<",
                     because="1 is as bad", seeds=budget["budget"] / budget["random"]),
        RECYCLED.claim("recycled-mass", "while a query turns slowly, keys that mattered a few "
                       "steps ago keep more mass than sinks and near ones: difference", 0.2,
                       float(np.median(mass["recycled"] - mass["near"])), ">",
                       because="a fifth of the weight is much", note=_means(mass),
                       seeds=mass["recycled"] - mass["near"]),
    ]  # fmt: skip


def _rectified(key: jax.Array) -> dict[str, jax.Array]:
    """Relative errors on 8 blocks of 8 tokens, each around a mean of its own."""
    of_means, of_noise = jax.random.split(key)
    means = jax.random.normal(of_means, (3, 1, 8, 1, 8))
    noise = 0.3 * jax.random.normal(of_noise, (3, 1, 64, 1, 8))
    query, key, value = jnp.repeat(means, 8, axis=2) + noise
    dense = attend(query, key, value)
    chosen = rectified_attention.select(query, key, block=8, mass=0.5, least=2)
    plain = attend(query, key, value, mask=masks.blocks(chosen.critical, 8, 8))
    ours = rectified_attention.rectified_attention(query, key, value, block=8, mass=0.5, least=2)
    return {"rectified": _error(ours, dense), "plain": _error(plain, dense)}


def _sparsed(key: jax.Array) -> dict[str, jax.Array]:
    """Masses of choices of 8 heads, each of which looks some blocks away, over 32 noisy steps."""
    length, block, heads, dim, steps = 256, 16, 8, 16, 32
    generated, share = length // 2, 0.1
    of_means, of_queries, of_keys, of_walk, of_early = jax.random.split(key, 5)
    spread = lambda means: jnp.repeat(means, block, axis=1)
    means = 1.6 * jax.random.normal(of_means, (1, length // block, heads, dim))
    rolled = [jnp.roll(means[:, :, h], 3 * h, axis=1) for h in range(heads)]
    noise = lambda key: 0.5 * jax.random.normal(key, (1, length, heads, dim))
    query = spread(jnp.stack(rolled, 2)) + noise(of_queries)
    keys = spread(means) + noise(of_keys)
    walk = 0.03 * jnp.cumsum(jax.random.normal(of_walk, (steps, 2, *query.shape)), axis=0)
    early = 3 * jax.random.normal(of_early, (2, *query.shape))
    at = lambda moved: (query + moved[0], keys + moved[1])
    choose = lambda q, k: sparsed_attention.choose_blocks(
        q, k, block=block, share=share, generated=generated
    )
    last, chosen = at(walk[-1]), choose(*at(walk[int(steps * 0.2) + 1]))
    weights = tile_mean_probabilities(*last, block) * block  # of a row of blocks they sum to 1
    # As many blocks as a head may choose: 2 among all, and 1 among the generated.
    shared = jnp.broadcast_to(top_count(weights.mean(1, keepdims=True), 3), weights.shape)
    kept = lambda mask: (weights * mask).sum(-1).mean()
    again = choose(*last)
    return {
        "frozen": kept(chosen), "shared": kept(shared), "early": kept(choose(*at(early))),
        "overlap": (chosen & again).sum() / (chosen | again).sum(),
    }  # fmt: skip


BLOCK, SIGMA, KEPT = 16, 1.5, 0.39  # tokens of a block, width of budgets, share that is kept


def _centre(block: int, sigma: float, share: float) -> float:
    """The centre of the budget that keeps such a share of tokens."""
    counts = 2.0 ** np.arange(block.bit_length())
    low, high = -4.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        kept = (token_budget.budget(block, middle, sigma) * counts).sum() / block
        low, high = (middle, high) if kept < share else (low, middle)
    return low


def _budgets(key: jax.Array, mu: float) -> dict[str, jax.Array]:
    """Relative errors of 32 queries, of tokens chosen by 32 others in blocks more or less alike."""
    length, dim = 1024, 16
    of_means, of_spread, of_tokens, of_queries, of_random = jax.random.split(key, 5)
    blocks = length // BLOCK
    centre, spread = jax.random.normal(of_means, (2, blocks, 1, dim))
    width = jax.random.uniform(of_spread, (blocks, 1, 1), minval=0.05, maxval=1.2)
    of_keys, of_values = jax.random.split(of_tokens)
    draw = lambda key: jax.random.normal(key, (blocks, BLOCK, dim))
    keys = (1.2 * (centre + width * draw(of_keys))).reshape(1, length, 1, dim)
    values = (spread + width * draw(of_values)).reshape(1, length, 1, dim)
    of_places, of_noise = jax.random.split(of_queries)
    places = jax.random.randint(of_places, (64,), 0, length)
    noise = 0.3 * jax.random.normal(of_noise, (1, 64, 1, dim))
    query = 2 * (keys[:, places] + noise)
    seen, fresh = query[:, :32], query[:, 32:]
    _, weights = attend(seen, keys, values, return_weights=True)
    shares = token_budget.budget(BLOCK, mu, SIGMA)
    counts = token_budget.counts(token_budget.redundancy(keys, BLOCK), shares)
    kept = token_budget.keep_tokens(weights.mean(2), counts, BLOCK)[0, 0]
    number = kept.sum()
    # Every few tokens, and random ones: as many of either.
    even = jnp.floor(jnp.arange(1, length + 1) * number / length)
    stride = jnp.diff(even, prepend=0) > 0
    order = jax.random.permutation(of_random, length)
    dense = attend(fresh, keys, values)
    error = lambda mask: _error(attend(fresh, keys, values, mask=masks.padding(mask[None])), dense)
    return {"budget": error(kept), "stride": error(stride), "random": error(order < number)}


def _recycled(key: jax.Array) -> dict[str, jax.Array]:
    """Mean mass of 64 keys, of those of the last full step and of 4 sinks and 60 near ones."""
    length, dim, count, stride, steps, turn = 512, 16, 64, 8, 64, 0.02
    of_keys, of_plane = jax.random.split(key)
    keys = jax.random.normal(of_keys, (1, length, 1, dim))
    first, second = 3 * jax.random.normal(of_plane, (2, dim))
    angle = turn * jnp.arange(steps)[:, None]
    queries = jnp.cos(angle) * first + jnp.sin(angle) * second

    def step(state, place):
        index, query = place
        query = query[None, None]
        size = length - steps + 1 + index
        _, state = recycled_attention.recycled_step(
            query, keys, keys, size, state, stride=stride, count=count
        )
        there = masks.padding((jnp.arange(length) < size)[None])
        _, weights = attend(query[:, None], keys, keys, mask=there, return_weights=True)
        near = (jnp.arange(length) < 4) | (jnp.arange(length) >= size - count + 4)
        mass = lambda keep: recycled_attention.recovered_mass(weights[:, :, 0], keep).mean()
        # A step that looks at all counts too: it is when the others are chosen.
        return state, (mass(state.keep), mass(near[None, None]))

    begin = recycled_attention.empty(queries[:1, None], keys)
    _, (again, near) = jax.lax.scan(step, begin, (jnp.arange(steps), queries))
    return {"recycled": again.mean(), "near": near.mean()}


def _error(out: jax.Array, dense: jax.Array) -> jax.Array:
    return jnp.sqrt(((out - dense) ** 2).mean() / (dense**2).mean())


def _arrays(found: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in found.items()}


def _means(found: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {values.mean():.3f}" for name, values in found.items())


def _draw(run: Run, name: str, caption: str, groups: dict[str, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, len(groups), width=3.4)
    for axis, (title, found) in zip(axes[0], groups.items(), strict=True):
        shown = {key: values for key, values in found.items() if key != "overlap"}
        for number, values in enumerate(shown.values()):
            axis.plot(np.full(len(values), number), values, ".", color=COLORS[number], alpha=0.6)
        axis.set_xticks(range(len(shown)), list(shown))
        axis.set_ylim(bottom=0)
        label(axis, "", title)
    run.save_figure(figure, name, caption + " Dots are draws.")
