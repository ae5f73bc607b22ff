"""Training speed of the in-context regression layer, against an eager PyTorch loop of the same."""

import tempfile
import time
from typing import Any

import optax

from configs.in_context_regression import get_config
from jattn.tasks.linear_regression import linear_regression
from jattn.theory import in_context_attention as layer
from jattn.training import Run, fit

_CONFIG: Any = get_config()
CPU_DEVICES = _CONFIG.parallel.cpu_devices
HEADS, SHORT, LONG = 2, 1_000, 6_000


def seconds_a_step() -> float:
    """Of `fit`, one seed, spread over devices as the experiment is.

    The difference of a long and a short fit is timed, so that compiling drops out.
    """
    config: Any = get_config()
    times = []
    with tempfile.TemporaryDirectory() as folder, Run.open(folder, config, name="bench") as run:
        for steps in (SHORT, LONG):
            start = time.perf_counter()
            fit(
                lambda key: layer.init(key, heads=HEADS, dim=config.dim),
                layer.squared_error,
                linear_regression(config.dim, config.length, config.noise_variance),
                optax.adam(config.learning_rate),
                run=run,
                name=f"steps_{steps}",
                seeds=1,
                steps=steps,
                batch_size=config.batch_size,
            )
            times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / (LONG - SHORT)


def torch_seconds_a_step(steps: int = 1_000) -> float | None:
    """Of a plain eager loop: linear layers, softmax, Adam, fresh data; None without PyTorch."""
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError:
        return None
    config: Any = get_config()
    width, batch, length, dim = config.dim + 1, config.batch_size, config.length, config.dim
    project = [torch.nn.Linear(width, HEADS * width, bias=False) for _ in range(3)]
    output = torch.nn.Linear(HEADS * width, 1, bias=False)
    weights = [p for module in (*project, output) for p in module.parameters()]
    adam = torch.optim.Adam(weights, lr=config.learning_rate)

    def step():
        beta = torch.randn(batch, dim, 1) / dim**0.5
        x = torch.randn(batch, length + 1, dim)
        y = x @ beta + config.noise_variance**0.5 * torch.randn(batch, length + 1, 1)
        tokens = torch.cat([x[:, :-1], y[:, :-1]], -1)
        query = torch.cat([x[:, -1:], torch.zeros(batch, 1, 1)], -1)

        def heads(module, z):
            return module(z).view(batch, -1, HEADS, width).transpose(1, 2)

        q, k, v = (heads(m, z) for m, z in zip(project, (query, tokens, tokens), strict=True))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / width**0.5, -1) @ v
        loss = ((output(mixed.transpose(1, 2).flatten(2))[:, 0] - y[:, -1]) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    for _ in range(50):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps
