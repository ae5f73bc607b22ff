"""What costs O(n) operations takes O(n) memory, too, in the gradient."""

import jax
import jax.numpy as jnp
import pytest

from jattn.mechanisms import zoo

M, H, LENGTHS = 8, 2, (1024, 2048)
LINEAR = [
    (name, causal)
    for name in zoo.names(kind="mixer")
    if zoo.info(name).cost in ("linear", "n*w")
    for causal in (False, True)
    if (zoo.info(name).causal if causal else zoo.info(name).bidirectional)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "causal"), LINEAR)
def test_temporaries_grow_with_the_length_not_its_square(name, causal):
    mixer = zoo.make(name, dim=M, heads=H, causal=causal)
    params = jax.eval_shape(mixer.init, jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda params, x: (mixer.apply(params, x) ** 2).sum(), (0, 1)))

    def temporaries(length):
        x = jax.ShapeDtypeStruct((1, length, M), jnp.float32)
        analysis = gradient.lower(params, x).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    short, long = map(temporaries, LENGTHS)
    assert long <= 2.2 * short
