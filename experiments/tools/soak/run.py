"""The run that is killed: least squares, with everything that a run can write."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

from jattn.training import Claim, Run, cli, fit

TRUTH = (1.0, -2.0, 0.5, 3.0)


def run_experiment(config: ml_collections.ConfigDict, run: Run) -> list[Claim]:
    """Fits a line, keeps its parameters, draws its loss, and claims that it is the right one."""
    import matplotlib.pyplot as plt

    truth = jnp.array(TRUTH)

    def sample(key):
        x = jax.random.normal(key, truth.shape)
        return x, x @ truth

    result = fit(
        lambda key: jax.random.normal(key, truth.shape),
        lambda params, batch: jnp.mean((batch[0] @ params - batch[1]) ** 2),
        sample,
        optax.adam(config.rate),
        run=run,
        name="line",
        seeds=3,  # odd, so that two devices share batches and average gradients
        steps=config.steps,
        batch_size=16,
        log_every=50,
        steps_per_dispatch=50,
        checkpoint_every=config.checkpoint_every,
    )
    found = run.cached("parameters", lambda: {"w": result.params})["w"]
    distance = run.cached("distance", lambda: {"d": abs(found - jnp.array(TRUTH))})["d"]
    figure, axes = plt.subplots()
    axes.semilogy(result.steps, result.history["loss"])
    run.save_figure(figure, "loss", "Loss against steps.")
    run.log(config.steps, "result", {"distance": float(distance.max())})
    return [
        Claim("line", "The line is found.", "by hand", 0.0, float(distance.max()), "~=", 0.5),
        Claim("loss", "The loss falls.", "by hand", 1.0, float(result.history["loss"][-1].max()),
              "<", 0.0),
    ]  # fmt: skip


if __name__ == "__main__":
    cli.main(run_experiment, name="soak")
