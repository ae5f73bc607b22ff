"""Attention between the nodes of a graph: its weights, their training, a figure.

Nodes have learned embeddings. The weights of node i should be

    p_ij = exp(-distance(i, j)) / sum_k exp(-distance(i, k))

which is what hyperbolic or spherical attention gives where the points have the distances of the
graph, at a temperature of one. A head has few dimensions, so that a geometry can be wrong.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.curvature.graphs import GRAPHS
from experiments.functional import optimizer
from experiments.plots import COLORS, label, panels
from jattn.mechanisms.combinators.mixture import router_shares
from jattn.mechanisms.mixer import Mixer, edit_parts
from jattn.mechanisms.softmax.curved_attention import GEOMETRIES
from jattn.training import Run, fit

MIXTURE = "mixture"
MODELS = (*GEOMETRIES, MIXTURE)
HEADS = len(GEOMETRIES)  # the mixture has one of each geometry, a geometry alone has three


def reader(config, model: str) -> Mixer:
    """Curved attention whose output is the mean of its heads' weights, `[b, t, s]`."""
    mixer = jattn.zoo.make(
        "curved_attention",
        dim=HEADS * config.head_dim,
        heads=HEADS,
        geometries=GEOMETRIES if model == MIXTURE else (model,),
        branches="separate",
        sphere="angle",
    )

    def weights_of(parts):
        def core(params, query, key, value, context):
            b, s, h, _ = key.shape
            indicators = jnp.broadcast_to(jnp.eye(s)[None, :, None], (b, s, h, s))
            return parts.core(params, query, key, indicators, context)

        def output(params, mixed, x):  # shares of the heads sum to 1 where there are several
            summed = mixed.reshape(*mixed.shape[:2], HEADS, -1).sum(2)
            return summed if model == MIXTURE else summed / HEADS

        return parts._replace(core=core, output=output)

    return edit_parts(mixer, weights_of)


def trained(run: Run, config, graph: str, model: str) -> dict[str, np.ndarray]:
    """KL of the weights `[seeds]`, and the mean share of each geometry `[seeds, 3]`."""
    wanted = jax.nn.softmax(-jnp.asarray(GRAPHS[graph](), jnp.float32))
    entropy = -(wanted * jnp.log(wanted)).sum(-1)
    nodes = len(wanted)
    mixer = reader(config, model)

    def init(key):
        of_nodes, of_mixer = jax.random.split(key)
        table = jax.random.normal(of_nodes, (nodes, HEADS * config.head_dim))
        return {"nodes": table, "mixer": mixer.init(of_mixer)}

    def divergence(params):
        weights = mixer.apply(params["mixer"], params["nodes"][None])[0]
        return -(wanted * jnp.log(weights + 1e-9)).sum(-1) - entropy

    fit_name = f"{graph}_{model}"
    params = fit(
        init,
        lambda params, asked: divergence(params)[asked].mean(),
        lambda key: jax.random.randint(key, (), 0, nodes),
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=fit_name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params

    def tested():
        @jax.jit
        def measure(params):
            shares = jnp.zeros(HEADS)
            if model == MIXTURE:
                shares = router_shares(params["mixer"], params["nodes"][None])[0].mean(0)
            return divergence(params).mean(), shares

        loss, shares = jax.vmap(measure)(params)
        return {"loss": np.asarray(loss), "shares": np.asarray(shares)}

    return run.cached(fit_name, tested)


def draw(run: Run, rows: dict[str, dict[str, dict[str, np.ndarray]]]) -> None:
    """Saves a figure of the shares and of the losses, by graph."""
    figure, axes = panels(1, 2, width=3.6)
    at = np.arange(len(rows))
    for number, name in enumerate(MODELS):
        losses = np.stack([models[name]["loss"] for models in rows.values()])
        bars(axes[0, 1], at, number, losses, name)
        if name != MIXTURE:
            shares = np.stack([models[MIXTURE]["shares"][:, number] for models in rows.values()])
            bars(axes[0, 0], at, number, shares, name)
    for axis in axes[0]:
        axis.set_xticks(at, list(rows))
    axes[0, 0].axhline(1 / HEADS, color="#999999", linestyle=":", linewidth=1)
    label(axes[0, 0], "", "share in the mixture", legend=False)
    label(axes[0, 1], "", "KL, nats a node")
    run.save_figure(
        figure,
        "geometries",
        "Left: mean share of each geometry in the mixture, by graph; dotted, as at the start. "
        "Right: how far the weights are from those that are wanted, for each geometry alone (three "
        "heads) and the mixture (a head of each). Means and standard deviations over seeds.",
    )


def bars(axis, at: np.ndarray, number: int, values: np.ndarray, name: str) -> None:
    """Bars of one model, a group for each graph; values `[graphs, seeds]`."""
    axis.bar(
        at + 0.2 * (number - 1.5),
        values.mean(1),
        0.18,
        yerr=values.std(1),
        color=COLORS[number],
        label=name,
    )
