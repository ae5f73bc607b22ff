"""Parts of mixers: what replaces one of them changes the whole, the steps, and what is around."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import gated, mixture, routed, short_convolution
from jattn.mechanisms.layers.heads import merge_heads
from jattn.mechanisms.mixer import edit_parts, prefill
from jattn.nn import Transformer, TransformerConfig

B, T, M, H = 2, 6, 8, 2
X = jax.random.normal(jax.random.key(1), (B, T, M))
# Their functions are not of one projection of the tokens, nor of heads.
WITHOUT = {
    "channel_self_attention", "codebook_bottleneck", "multi_axis_gmlp", "ninformer",
    "reaction_diffusion", "step_attention",
}  # fmt: skip


def near(a, b, atol=1e-6):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5)


def causal(name, **options):
    return zoo.make(name, dim=M, heads=H, causal=True, **options)


def streamed(mixer, params):
    """Outputs after a prompt of three tokens, and token by token from there."""
    y, state = prefill(mixer, params, X[:, :3], mixer.init_state(params, B, T))
    rest = []
    for t in range(3, T):
        one, state = mixer.step(params, X[:, t], state)
        rest.append(one)
    return jnp.concatenate([y, jnp.stack(rest, 1)], 1)


def test_mechanisms_have_parts_that_know_their_weights():
    for name in zoo.names(kind="mixer"):
        mechanism = zoo.info(name)
        mixer = mechanism.make(dim=M, heads=H, causal=mechanism.causal)
        if name in WITHOUT:
            assert mixer.parts is None
            with pytest.raises(ValueError, match="mixer: expected one with parts"):
                edit_parts(mixer, lambda parts: parts)
            continue
        assert mixer.parts is not None
        params = jax.eval_shape(mixer.init, jax.random.key(0))
        maps = jax.eval_shape(mixer.parts.project, params, X, X)
        for weights, array in maps.items():
            own = params[weights.partition("/")[0]]
            own = own["weight"] if isinstance(own, dict) else own  # some have a bias
            assert array.shape == (B, T, own.shape[1])


def silenced(parts):
    return parts._replace(output=lambda params, mixed, x: jnp.zeros_like(x))


@pytest.mark.parametrize("name", ["softmax_attention", "retention", "linear_attention"])
def test_outputs_are_replaced_in_the_whole_and_in_steps(name):
    mixer = causal(name)
    params = mixer.init(jax.random.key(0))
    silent = edit_parts(mixer, silenced)
    assert not jax.jit(silent.apply)(params, X).any()
    assert not jax.jit(lambda p: streamed(silent, p))(params).any()
    assert jax.jit(mixer.apply)(params, X).any()


@pytest.mark.parametrize("name", ["softmax_attention", "retention", "linear_attention"])
def test_values_and_queries_are_replaced(name):
    """Values by twice as large ones, the queries of head 1 by zeros."""
    mixer = causal(name)
    params = mixer.init(jax.random.key(0))
    half = M // H

    def edit(parts):
        def project(params, x, source):
            maps = parts.project(params, x, source)
            query = maps["query"].at[..., half:].set(0)
            return maps | {"query": query, "value": 2 * maps["value"]}

        return parts._replace(project=project)

    weights = {"query": params["query"].at[:, half:].set(0), "value": 2 * params["value"]}
    edited = edit_parts(mixer, edit)
    expected = jax.jit(mixer.apply)(params | weights, X)
    near(jax.jit(edited.apply)(params, X), expected, 1e-5)
    near(jax.jit(lambda p: streamed(edited, p))(params), expected, 1e-5)


def test_cores_see_queries_that_are_ready():
    mixer = causal("softmax_attention", rotary=True)
    params, seen = mixer.init(jax.random.key(0)), []

    def edit(parts):
        def core(params, query, key, value, context):
            seen.append(query)
            return parts.core(params, query, key, value, context)

        return parts._replace(core=core)

    y = edit_parts(mixer, edit).apply(params, X)
    near(y, mixer.apply(params, X), 0)
    plain = mixer.parts.project(params, X, X)["query"]
    near(merge_heads(seen[0])[:, 0], plain[:, 0])
    assert np.abs(merge_heads(seen[0])[:, 1:] - plain[:, 1:]).max() > 1e-2


def test_a_change_comes_behind_those_that_were_there():
    """Heads that are replaced by ones show what an outer combinator sees, and is."""
    inner = gated(causal("softmax_attention"), dim=M, heads=H)
    params = inner.init(jax.random.key(0))
    ones = lambda parts: parts._replace(
        output=lambda params, mixed, x: parts.output(params, jnp.ones_like(mixed), x)
    )
    near(edit_parts(inner, ones).apply(params, X), jnp.ones((B, T, M)) @ params["output"])
    outer = routed(inner, dim=M, heads=H, shared=0, chosen=1)
    params = outer.init(jax.random.key(0))
    seen = edit_parts(outer, ones)
    near(seen.apply(params, X), jnp.ones((B, T, M)) @ params["output"])
    assert seen.auxiliary is not None


def test_filters_stay_around_projections_that_are_replaced():
    mixer = short_convolution(causal("delta_rule"), width=3)
    params = mixer.init(jax.random.key(0))
    double = lambda parts: parts._replace(
        project=lambda params, x, source: jax.tree.map(
            lambda y: 2 * y, parts.project(params, x, source)
        )
    )
    twice = {n: v._replace(weight=2 * v.weight) for n, v in params.items() if hasattr(v, "taps")}
    edited = edit_parts(mixer, double)
    near(edited.apply(params, X), mixer.apply(params | twice, X), 1e-5)
    near(jax.jit(lambda p: streamed(edited, p))(params), edited.apply(params, X), 1e-5)


@pytest.mark.parametrize("name", ["titans_mal", "window_query_attention", "minimal_attention"])
def test_filters_step_where_not_tokens_are_projected(name):
    mixer = short_convolution(causal(name), width=3)
    params = mixer.init(jax.random.key(0))
    whole = jax.jit(mixer.apply)(params, X)
    near(jax.jit(lambda p: streamed(mixer, p))(params), whole, 2e-5)


def test_mixers_without_parts_are_refused(plain_checks):
    both = mixture({"a": causal("softmax_attention")}, dim=M)
    for combine in (
        lambda: short_convolution(both),
        lambda: short_convolution(causal("step_attention")),
        lambda: gated(both, dim=M, heads=H),
        lambda: routed(both, dim=M, heads=H),
    ):
        with pytest.raises(ValueError, match="mixer: expected one with parts"):
            combine()


def test_a_model_runs_with_other_parts_and_stays_as_it_is():
    config = TransformerConfig(
        vocab_size=9, dim=M, heads=H, layers=2, mlp_ratio=0.0, positions="none"
    )
    model = Transformer(config, rngs=nnx.Rngs(0))
    tokens = jnp.arange(5)[None]
    before = model(tokens)
    alone = model(tokens, edits={0: silenced, 1: silenced})
    near(alone, model.embed.attend(model.norm(model.embed(tokens))), 1e-5)
    assert np.abs(alone - model(tokens, edits={1: silenced})).max() > 1e-4
    near(model(tokens), before, 0)
