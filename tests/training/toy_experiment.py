"""A toy experiment: least squares, one claim, one figure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jattn.training import Claim, cli, fit, run_studies

TRUTH = np.array([1.0, -2.0, 0.5, 3.0])


def init(key):
    return {"w": jax.random.normal(key, (4,)), "b": jnp.zeros(())}


def sample(key):
    x = jax.random.normal(key, (4,))
    return {"x": x, "y": x @ TRUTH + 1.0}


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


def record(params):
    return {"norm": jnp.linalg.norm(params["w"]), "w": params["w"]}


def line(run, config):
    result = fit(
        init,
        loss,
        sample,
        optax.sgd(config.rate),
        run=run,
        name="line",
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        log_every=7,
        record=record,
        checkpoint_every=config.checkpoint_every,
        steps_per_dispatch=10,
    )
    offset = run.cached("offset", lambda: {"b": result.params["b"]})["b"]
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot(result.steps, result.history["loss"])
    run.save_figure(figure, "loss", "Loss against steps.")
    run.log(config.steps, "result", {"offset": float(offset.mean())})
    return [
        Claim(
            "offset", "The offset is found.", "by hand", config.expected, offset.mean(), "~=", 0.5
        )
    ]


STUDIES = {"line": line}


def run_experiment(config, run):
    return run_studies(run, config, STUDIES)


if __name__ == "__main__":
    cli.main(run_experiment, name="toy")
