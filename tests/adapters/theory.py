"""Adapters for the theory papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jattn.tasks.linear_regression import Prompt
from jattn.theory import icl, icl_estimators, icl_flow
from jattn.theory import in_context_attention as ica


def icl_softmax_attention(case):
    """Forward, gradients, circuits and Adam steps of the authors' module."""
    options, arrays = case.info["options"], case.arrays
    heads, dim, responses = options["heads"], options["d"], options["responses"]
    width = dim + responses

    def split(name):  # [h D, D], head-major rows
        return jnp.asarray(arrays[f"W_{name}"]).reshape(heads, width, width)

    output = jnp.asarray(arrays["W_o"]).reshape(responses, heads, width).transpose(1, 0, 2)
    params = ica.Parameters(split("q"), split("k"), split("v"), output)
    z = jnp.asarray(arrays["z"])
    prompt = Prompt(
        z[..., :dim],
        z[..., dim:],
        jnp.asarray(arrays["z_q"])[:, 0, :dim],
        jnp.asarray(arrays["y_q"])[:, 0],
    )

    def joined(tree):
        square = [leaf.reshape(heads * width, width) for leaf in tree[:3]]
        return [*square, tree.output.transpose(1, 0, 2).reshape(responses, heads * width)]

    loss_and_grad = jax.jit(jax.value_and_grad(ica.squared_error))
    loss, grads = loss_and_grad(params, prompt)
    key_query, output_value = ica.circuits(params)
    outputs = {
        "out": ica.predict(params, prompt)[:, None],
        "loss": loss,
        "KQ": key_query,
        "OV": output_value,
        **dict(zip(["grad_q", "grad_k", "grad_v", "grad_o"], joined(grads), strict=True)),
    }
    adam = options["adam"]
    optimizer = optax.adam(adam["lr"], *adam["betas"], eps=adam["eps"])
    state, losses = optimizer.init(params), []
    for _ in range(adam["steps"]):
        loss, grads = loss_and_grad(params, prompt)
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    outputs["adam_losses"] = jnp.stack(losses)
    names = ["adam_W_q", "adam_W_k", "adam_W_v", "adam_W_o"]
    return outputs | dict(zip(names, joined(params), strict=True))


def icl_closed_forms(case):
    """Approximate risk, its gradients and descent, estimators, the Bayes limit."""
    info = case.info
    problem = dict(dim=info["d"], length=info["L"], noise_variance=info["noise_variance"])
    omega, mu = np.array(info["omega"]), np.array(info["mu"])
    grad_omega, grad_mu = icl_flow.risk_gradients(omega, mu, **problem)

    descended_omega, descended_mu = 0.05 * omega, 0.05 * mu
    for _ in range(2000):
        steps = icl_flow.risk_gradients(descended_omega, descended_mu, **problem)
        descended_omega = descended_omega - 0.02 * steps[0] / 2
        descended_mu = descended_mu - 0.02 * steps[1] / 2

    with jax.enable_x64(True):
        prompt = Prompt(
            jnp.array(info["X"]).T,
            jnp.array(info["y"])[:, None],
            jnp.array(info["x_q"]),
            jnp.zeros(1),
        )
        eta = 2 * 0.13 * 3.45
        arrays = {
            "approx_loss": icl.approximate_risk(jnp.array(omega), jnp.array(mu), **problem),
            "mu_star": icl.best_output(jnp.array(omega), **problem),
            "pred_kernel_sum": icl_estimators.softmax_heads(
                prompt, jnp.array(omega), jnp.array(mu)
            ),
            "pred_gd": icl_estimators.gradient_descent(prompt, eta),
            "pred_debiased_gd": icl_estimators.debiased_gradient_descent(prompt, eta),
            "pred_ridge": icl_estimators.ridge(prompt, info["d"] * info["noise_variance"]),
        }
        descended = icl.approximate_risk(
            jnp.array(descended_omega), jnp.array(descended_mu), **problem
        )
        return {name: np.asarray(value) for name, value in arrays.items()} | {
            "half_grad_mu": grad_mu / 2,
            "half_grad_omega": grad_omega / 2,
            "gradient_descent": {
                "mu": descended_mu,
                "omega": descended_omega,
                "half_loss": float(descended) / 2,
            },
            "bayes_limit": icl.bayes_risk_limit(info["d"] / info["L"], info["noise_variance"]),
        }


ADAPTERS = {
    ("theory", "icl_softmax_attention"): icl_softmax_attention,
    ("theory", "icl_closed_forms"): icl_closed_forms,
}
