"""A law that switches in time: each value is foretold from the pairs before it. T1 to T3."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.test_time_regression import figures
from experiments.test_time_regression.common import claim_of, one_head, over, seeds_of
from experiments.test_time_regression.segments import NAMES
from jattn.attention import attend
from jattn.mechanisms.linear.local_linear_attention import local_linear_attention
from jattn.tasks.piecewise_regression import switching_stream
from jattn.theory import regression_layers as layers
from jattn.training import Claim, Run, sweep

LAYERS = ("local_linear", "softmax", "mesa", "delta")


def errors_of(config, key, value, clean):
    """Squared errors `[..., t]` of every layer, by its knobs."""
    arrays = one_head(key, key, value)
    past = jnp.tril(jnp.ones((len(key), len(key)), bool), -1)
    error = lambda out: ((out - clean) ** 2).sum(-1)

    def local(scale, ridge):
        chosen = dict(scale=scale, ridge=ridge, solver="exact", mask=past)
        return error(local_linear_attention(*arrays, **chosen)[0, :, 0])

    def softmax(scale):
        return error(attend(*arrays, scale=scale, mask=past)[0, :, 0])

    def before(layer):
        """A layer at every place; keys of zero stand for the pairs that are yet to come."""

        def at(query, seen):
            return (layer(query[None], jnp.where(seen[:, None], key, 0)) @ value)[0]

        return error(jax.vmap(at)(key, past))

    def mesa(penalty):
        return before(lambda q, k: layers.ridge_regression(q, k, penalty=penalty))

    def delta(rate):
        return before(lambda q, k: layers.online_gradient_descent(q, k, rate=rate))

    return {
        "local_linear": over(local, config.scales, config.ridges),
        "softmax": over(softmax, config.scales),
        "mesa": over(mesa, config.penalties),
        "delta": over(delta, config.stream.rates),
    }


def stream(run: Run, config) -> list[Claim]:
    """Errors along streams whose segments are apart, or overlap."""
    sizes = config.stream
    draw = switching_stream(config.task.dim, sizes.length, sizes.segments, noise=config.task.noise)

    def compare(cell):
        drawn = draw(jax.random.key(cell["seed"]), cell["spread"])
        return errors_of(config, drawn.key, drawn.value, drawn.clean)

    spreads = [np.float32(spread) for spread in sizes.spreads]
    cells = [dict(seed=seed, spread=s) for s in spreads for seed in seeds_of(config)]
    found = sweep(run, "stream", compare, cells)

    curves, mean = [], []
    for i in range(len(spreads)):
        here = slice(i * config.seeds, (i + 1) * config.seeds)
        best = {}
        for name in LAYERS:
            by_knob = found[name][here].mean(0).reshape(-1, sizes.length * sizes.segments)
            best[name] = by_knob[by_knob.mean(-1).argmin()]
        curves.append(best)
        mean.append({name: float(curve.mean()) for name, curve in best.items()})
    figures.stream(run, sizes, dict(zip(sizes.spreads, curves, strict=True)), NAMES)

    apart, overlapping = mean
    shown = lambda e: ", ".join(f"{NAMES[n]} {x:.3g}" for n, x in e.items())
    notes = [f"{shown(e)}; best of the grid, mean of {config.seeds} seeds" for e in mean]
    others = min(error for name, error in apart.items() if name != "local_linear")
    keep = min(overlapping["softmax"], overlapping["mesa"])
    return [
        claim_of("T1", "segments apart: error of local linear attention over the best other "
                 "layer's", 1.0, apart["local_linear"] / others, "<", None,
                 where="abstract: adapts to non-stationarity", note=notes[0]),
        claim_of("T2", "segments overlap: the same over the best other layer that keeps all pairs",
                 1.0, overlapping["local_linear"] / keep, "<", note=notes[1]),
        claim_of("T3", "segments overlap: keys do not tell which law holds, and what forgets (the "
                 "delta rule) errs less than local linear attention", 1.0,
                 overlapping["delta"] / overlapping["local_linear"], "<", None,
                 derived=True,
                 note=f"two laws at one key are averaged; {notes[1]}"),
    ]  # fmt: skip
