"""Mechanisms of linear cost stream with a state that does not grow, however long it lasts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo

B, M, H = 1, 8, 2
LONG = 100_000
CONSTANT = [
    n for n in zoo.names(kind="mixer") if zoo.info(n).streaming and zoo.info(n).cost == "linear"
]


def states(name, length):
    mixer = zoo.make(name, dim=M, heads=H, causal=True)
    make_state = mixer.init_state
    assert make_state is not None
    return jax.eval_shape(lambda key: make_state(mixer.init(key), B, length), jax.random.key(0))


@pytest.mark.parametrize("name", CONSTANT)
def test_the_state_does_not_know_the_length(name):
    shapes = [[leaf.shape for leaf in jax.tree.leaves(states(name, n))] for n in (2, LONG)]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSTANT)
def test_a_hundred_thousand_tokens_in_constant_memory(name):
    mixer = zoo.make(name, dim=M, heads=H, causal=True)
    assert mixer.init_state is not None
    assert mixer.step is not None
    init_state, step = mixer.init_state, mixer.step
    params = mixer.init(jax.random.key(0))

    def stream(params, key, length):
        """Tokens are drawn as they come; of the reads the largest and the last are kept."""

        def one(carry, _):
            state, largest, _, place = carry
            token = jax.random.normal(jax.random.fold_in(key, place), (B, M))
            y, state = step(params, token, state)
            return (state, jnp.maximum(largest, abs(y).max()), y, place + 1), None

        start = init_state(params, B, length), jnp.zeros(()), jnp.zeros((B, M)), 0
        return jax.lax.scan(one, start, length=length)[0]

    def compiled(length):
        return jax.jit(stream, static_argnums=2).lower(params, jax.random.key(1), length).compile()

    programs = {length: compiled(length) for length in (100, LONG)}
    analyses = {n: p.memory_analysis() for n, p in programs.items()}
    memory = {n: analysis.temp_size_in_bytes for n, analysis in analyses.items() if analysis}
    assert memory[LONG] <= memory[100] + 64
    state, largest, last, _ = programs[LONG](params, jax.random.key(1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, largest)))
    assert np.any(last)
