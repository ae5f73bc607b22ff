"""Times of the trained language model, beside `transformers` on PyTorch where that is installed.

And of ablating its heads one by one, beside TransformerLens.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.language_model import last_of
from jattn import lens
from jattn.lens.patching import over_edits
from jattn.nn import Llama, generate
from jattn.pretrained.smollm2 import NAME, smollm2_path

PROMPT, NEW = 512, 64
ABLATED, SIDE_BY_SIDE = 100, 27  # tokens of the text, and heads at a time


def best(function: Callable[[], Any], repeats: int) -> float:
    """Shortest time in seconds, after one run to compile."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return min(times)


def language_model_times(repeats: int) -> Iterator[tuple[str, float, float | None, float]]:
    """Case, our seconds, theirs (None where PyTorch is not installed), and the promised speed-up.

    Raises:
        ImportError: the model is not installed.
    """
    model = Llama.from_gguf(NAME)
    prompt = jax.random.randint(jax.random.key(0), (1, PROMPT), 0, model.vocab_size)
    theirs = _transformers()
    # Weights are arguments: as constants of a program they would be compiled with it.
    read = nnx.jit(lambda model, tokens: model.prefill(tokens, model.init_state(1, PROMPT + 1))[0])
    prefill = lambda: read(model, prompt)
    other = None if theirs is None else theirs(prompt, 1, repeats)
    yield f"prefill of {PROMPT} tokens", best(prefill, repeats), other, 1.0
    short = prompt[:, :16]
    other = None if theirs is None else theirs(short, NEW, repeats)
    mine = best(lambda: generate(model, short, NEW), repeats)
    yield f"generation of {NEW} tokens", mine, other, 1.5
    tokens = prompt[:, :ABLATED]
    together = ablations(model, tokens)
    yield together
    heads = [(i, j) for i in range(model.config.layers) for j in range(model.config.heads)]
    yield (
        "one of them, in a loop",
        together[2] / len(heads),
        _transformer_lens(tokens, heads[::10]),
        1.0,
    )


def ablations(model: Llama, tokens: Any) -> tuple[str, float, float, float]:
    """All single-head ablations in one program, against a loop of a program of one."""
    layers, heads = model.config.layers, model.config.heads
    every = jnp.eye(layers * heads).reshape(-1, layers, heads)

    def loss(model, chosen):
        logits = lens.run(model, tokens, edits=[lens.ablate(chosen)], at=last_of(tokens))[0]
        return jax.nn.logsumexp(logits, -1).mean()

    one = nnx.jit(loss)
    together = nnx.jit(
        lambda model, all_: over_edits(lambda x: loss(model, x), all_, batch_size=SIDE_BY_SIDE)
    )
    mine = best(lambda: together(model, every), 1)
    # A tenth of the loop is timed, for it takes as long for every head.
    some = every[:: max(len(every) // 27, 1)]
    loop = best(lambda: [one(model, chosen) for chosen in some], 1) * len(every) / len(some)
    return f"{len(every)} ablations of heads, {ABLATED} tokens", mine, loop, 5.0


def _torch_model() -> Any:
    """The same weights in `transformers`, float32.

    Raises:
        ImportError: it, or PyTorch, is not installed.
    """
    import torch  # type: ignore  # noqa: F401
    from transformers import AutoModelForCausalLM  # type: ignore

    path = smollm2_path()
    return AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name).eval()


def _transformers() -> Callable[..., float] | None:
    """Seconds that `transformers` takes on the same weights, in float32; None without it."""
    try:
        import torch  # type: ignore

        model = _torch_model()
    except ImportError:
        return None

    def seconds(tokens, new, repeats):
        given = torch.tensor(jax.device_get(tokens))
        options: dict[str, Any] = dict(max_new_tokens=new, min_new_tokens=new, do_sample=False)

        def run():
            with torch.inference_mode():
                return model.generate(given, **options)

        return best(run, repeats)

    return seconds


def _transformer_lens(tokens: Any, chosen: list[tuple[int, int]]) -> float | None:
    """Seconds of one ablation of a layer's head in TransformerLens; None without it."""
    try:
        import torch  # type: ignore
        from transformer_lens.model_bridge import TransformerBridge  # type: ignore
        from transformers import AutoTokenizer  # type: ignore

        model, path = _torch_model(), smollm2_path()
    except ImportError:
        return None
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    with tempfile.TemporaryDirectory() as folder:  # it asks for a config by name, which is a folder
        model.config.save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=tokenizer)
    given = torch.tensor(jax.device_get(tokens))

    def ablate(layer, head):
        def zero(z, hook):
            z[:, :, head] = 0
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", zero)]
        with torch.inference_mode():
            return bridge.run_with_hooks(given, fwd_hooks=hooks)[:, -1].logsumexp(-1)

    return best(lambda: [ablate(*one) for one in chosen], 1) / len(chosen)
