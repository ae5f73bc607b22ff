"""Copy suppression: heads that write against the token they attend to, by weights and by effect."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.language_model import LanguageModel, language_model, program
from experiments.language_model_texts import STORY, repeated, tokens_of
from experiments.plots import label, panels
from jattn import lens
from jattn.lens.methods.copy_suppression import cspa, explained, ov_self_rank
from jattn.nn import Llama
from jattn.nn.llama import read_out
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2310.04625", "Copy suppression: comprehensively understanding a head")
LATE = 0.75  # of the layers
EXPLAINED = 2  # heads whose effect is taken apart


def suppression(run: Run, config) -> list[Claim]:
    """Tests the weights of all heads, then what the best two do on repeated tokens and a story."""
    language = language_model(config.model)
    found = run.cached("suppression", lambda: measured(run, language, config))
    _draw(run, found)
    shares = found["suppression"]
    layers, heads = shares.shape
    order = np.argsort(-shares, axis=None)
    passing = np.flatnonzero(shares.ravel() > config.suppresses)
    place = lambda index: str(divmod(int(index), heads))
    shown = ", ".join(f"{place(i)} {shares.ravel()[i]:.2f}" for i in order[:4])
    copying = np.argsort(-found["copying"], axis=None)[:3]
    first = passing.min() // heads if passing.size else -1
    chosen = ", ".join(place(i) for i in order[:EXPLAINED])
    return [
        PAPER.claim(
            "suppression-heads",
            "Some heads lower the very token they attend to, by their weights: number with more "
            f"than {config.suppresses:g} of tokens among the ten most lowered.",
            1,
            int(passing.size),
            ">=",
            because="one head is what the paper takes apart",
            note=f"{shown}; copying "
            + ", ".join(f"{place(i)} {found['copying'].ravel()[i]:.2f}" for i in copying),
        ),
        PAPER.claim(
            "suppression-few",
            "They are few: share of heads.",
            0.02,
            float(passing.size / shares.size),
            "<=",
            because="two of a hundred are few",
        ),
        PAPER.claim(
            "suppression-late",
            "They are late: first layer that has one.",
            LATE * layers,
            int(first),
            ">=",
            because="the last quarter is late",
        ),
        PAPER.claim(
            "suppression-direct",
            "On repeated tokens they lower the token that they attend to: largest mean of their "
            f"direct contributions to its logit, heads {chosen}.",
            0.0,
            float(found["direct"].max()),
            "<",
            because="0 is no effect",
            note=", ".join(f"{x:.2f}" for x in found["direct"]),
        ),
        PAPER.claim(
            "suppression-calibrates",
            "Without one of them the model is surer of the tokens that it attends to: smallest "
            "mean rise of their log probability, repeated tokens.",
            0.0,
            float(found["raised"].min()),
            ">",
            because="0 is no effect",
            note=", ".join(f"{x:.3f}" for x in found["raised"]),
        ),
        PAPER.claim(
            "suppression-explains",
            "Copy suppression is most of what the best of them does: share of its direct effect "
            "that is left when all else is ablated, story.",
            0.769,
            float(found["explained"].max()),
            ">=",
            where="76.9 % there, of head 10.7 of GPT-2 small on web text",
            note=f"heads {chosen}: " + ", ".join(f"{x:.2f}" for x in found["explained"]),
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Shares `[L, h]` of tokens that each head lowers or raises; effects of the best."""
    model = language.model
    layers, heads = model.config.layers, model.config.heads
    rng = np.random.default_rng(config.seed)
    size = model.config.vocab_size
    tokens = jnp.asarray(rng.choice(size, min(config.tokens, size), replace=False))
    twice = jnp.asarray(repeated(rng, size, 1, config.period))
    story = tokens_of(language.tokenizer, STORY)
    with run.progress("copy suppression", layers + 2 * EXPLAINED) as advance:
        rows = []
        for layer in range(layers):
            rows.append([np.asarray(x) for x in _ranks(model, layer, tokens)])
            advance(1)
        lowered, raised = (np.stack(x) for x in zip(*rows, strict=True))
        direct, without, share = [], [], []
        for index in np.argsort(-lowered, axis=None)[:EXPLAINED]:
            layer, head = divmod(int(index), heads)
            effects = _effects(model, twice, layer, head, jnp.zeros(config.period))
            direct.append(float(effects[0]))
            without.append(float(effects[1]))
            advance(1)
            share.append(float(_explained(model, story, layer, head)))
            advance(1)
    return dict(
        suppression=lowered,
        copying=raised,
        direct=np.array(direct),
        raised=np.array(without),
        explained=np.array(share),
    )


@program
def _ranks(model: Llama, layer, tokens):
    """The weights' test of all heads of a layer."""
    found = [ov_self_rank(model, layer, head, tokens) for head in range(model.config.heads)]
    return jnp.stack([one.suppression for one in found]), jnp.stack([one.copying for one in found])


@program
def _effects(model: Llama, tokens, layer, head, copy):
    """On the second copy: what a head adds to its token's logit, and its log p without the head.

    Its token is the one that has the largest weight of a row, the first aside.
    """
    sites = ("probs", "z", "resid_post")
    logits, found = lens.run(model, tokens, record=sites)
    rows = jnp.arange(len(copy), tokens.shape[1])
    row_maps = found["probs"][layer, 0, head][rows].at[:, 0].set(0)
    attended = tokens[0][row_maps.argmax(-1)]
    config, weights = model.config, model.arrays()
    out = _written(model, found["z"][layer, 0, :, head], layer, head)[rows]
    rms = jnp.sqrt((found["resid_post"][-1, 0][rows] ** 2).mean(-1, keepdims=True) + config.eps)
    direct = (out * weights["norm"] / rms * _unembedding(model).T[attended]).sum(-1)
    off = jnp.arange(config.layers * config.heads) == layer * config.heads + head
    edit = lens.ablate(off.reshape(config.layers, config.heads))
    silent = lens.run(model, tokens, edits=[edit])[0]
    log_p = lambda x: jnp.take_along_axis(jax.nn.log_softmax(x[0, rows], -1), attended[:, None], 1)
    return direct.mean(), (log_p(silent) - log_p(logits)).mean()


@program
def _explained(model: Llama, tokens, layer, head):
    """Share of a head's direct effect that copy suppression keeps."""
    config, weights = model.config, model.arrays()
    sites = ("probs", "z", "v", "resid_pre", "resid_post")
    logits, found = lens.run(model, tokens, record=sites)
    group = head * config.kv_heads // config.heads
    written = _written(model, found["v"][layer, 0, :, group], layer, head)
    unembed = weights["norm"][:, None] * _unembedding(model)
    given = (found["probs"][layer, 0, head], written, unembed, found["resid_pre"][layer, 0])
    own = _written(model, found["z"][layer, 0, :, head], layer, head)
    last = found["resid_post"][-1, 0]
    clean = jax.nn.log_softmax(logits[0], -1)

    def divergence(out):
        other = jax.nn.log_softmax(read_out(config, weights, last - own + out), -1)
        return (jnp.exp(clean) * (clean - other)).sum(-1)

    return explained(divergence(cspa(*given)), divergence(cspa(*given, k_total=0)))


def _written(model: Llama, read, layer, head):
    """What a head adds to the stream, of what it reads `[t, d]`."""
    config = model.config
    output = model.arrays()["layers"]["output"][layer]
    return read @ lax.dynamic_slice_in_dim(output, head * config.width, config.width)


def _unembedding(model: Llama):
    weights = model.arrays()
    return weights["embed"].T if model.config.tie_embeddings else weights["head"]


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.4, height=3.0)
    for axis, name, title in zip(
        axes[0], ("suppression", "copying"), ("lowers its own token", "raises it"), strict=True
    ):
        image = axis.imshow(found[name], cmap="viridis", vmin=0, aspect="auto", origin="lower")
        figure.colorbar(image, ax=axis, shrink=0.8)
        label(axis, "head", "layer", title)
    run.save_figure(
        figure,
        "copy_suppression",
        "Share of tokens that are among the ten whose logits a head lowers, or raises, most when "
        "it attends to them, by its weights.",
    )
