"""Calibration (ACT): the weight on all sinks but the first is spread, in all heads or some."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_model import LanguageModel, language_model, program
from experiments.language_model_texts import TEXTS, excerpts, tokens_of
from experiments.plots import COLORS, label, panels
from jattn import lens
from jattn.lens.edits import move_budget
from jattn.lens.methods.attention_calibration import calibrated_sinks, calibration_edit
from jattn.lens.patching import over_edits
from jattn.lens.readouts import token_losses
from jattn.nn import Llama
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2406.15765", "Unveiling and harnessing hidden attention sinks")
SIDE_BY_SIDE = 9


def calibration(run: Run, config) -> list[Claim]:
    """Calibrates all heads, then tries those that a gradient picks, then the best together."""
    language = language_model(config.model)
    found = run.cached("calibration", lambda: measured(run, language, config))
    _draw(run, found)
    names = list(TEXTS)
    change = found["all"] - found["plain"]
    helpful = found["single"] < found["base"]
    gain = (found["held_out"][0] - found["held_out"][1]) / found["held_out"][0]
    hidden = found["hidden_sinks"]
    return [
        PAPER.claim(
            "hidden-sinks",
            "There are sinks behind the first token: share of heads with at least one, mean of "
            "texts.",
            0.1,
            float(hidden.mean()),
            ">",
            because="a tenth of the heads is more than a few",
            note=", ".join(f"{n} {x:.2f}" for n, x in zip(names, hidden, strict=True)),
        ),
        PAPER.claim(
            "all-heads-hurt",
            "Calibrating all heads does harm, so heads must be chosen: smallest rise of the loss "
            "of a text, nats.",
            0.0,
            float(change.min()),
            ">",
            because="0 is no change",
            note=", ".join(f"{n} {x:+.3f}" for n, x in zip(names, change, strict=True)),
        ),
        PAPER.claim(
            "helpful-heads",
            "Some heads help if calibrated alone: number of those tried.",
            1,
            int(helpful.sum()),
            ">=",
            because="one is some",
            note=f"{len(helpful)} tried of {int(found['heads'])}, the most promising by gradient; "
            f"best {float((found['base'] - found['single']).max()):.4f} nats",
        ),
        PAPER.claim(
            "chosen-heads",
            "The helpful heads together help on text behind that which chose them: relative fall "
            "of the loss.",
            0.001,
            float(gain),
            ">",
            because="less counts as no gain; up to 7.3 points of accuracy in the paper",
            note=f"{int(helpful.sum())} heads; on the text that chose them "
            f"{float(1 - found['chosen'] / found['base']):+.4f}",
        ),
    ]


def measured(run: Run, language: LanguageModel, config) -> dict[str, Any]:
    """Losses of all texts, of single heads on their beginnings, of chosen ones behind these."""
    model, settings = language.model, config.calibration
    layers, heads = model.config.layers, model.config.heads
    keep, threshold = settings.keep, settings.threshold
    allowed = jnp.arange(layers)[:, None] >= min(settings.first_layer, layers - 1)
    everywhere = jnp.broadcast_to(allowed, (layers, heads))
    nowhere = jnp.zeros((layers, heads), bool)
    texts = [tokens_of(language.tokenizer, text) for text in TEXTS.values()]
    both = excerpts(language.tokenizer, list(TEXTS.values()), 2 * settings.length)
    some = both[:, : settings.length]
    with run.progress("calibration", len(texts) + config.calibration.tried) as advance:
        plain, every, hidden = [], [], []
        for tokens in texts:
            found = _of_text(model, tokens, everywhere, keep, threshold)
            for kept, value in zip((plain, every, hidden), found, strict=True):
                kept.append(value)
            advance(1)
        slopes = np.where(np.asarray(everywhere), _slopes(model, some, threshold), -np.inf)
        count = min(settings.tried, int(everywhere.sum()))
        tried = np.argsort(-slopes, axis=None)[:count]
        single = []
        for part in np.array_split(tried, max(count // SIDE_BY_SIDE, 1)):
            masks = np.arange(layers * heads) == part[:, None]
            given = jnp.asarray(masks.reshape(-1, layers, heads))
            single.append(np.asarray(_one_by_one(model, some, given, keep, threshold)))
            advance(len(part))
    single = np.concatenate(single)
    loss = lambda tokens, mask: _calibrated(model, tokens, mask, keep, threshold)
    base = loss(some, nowhere).mean()
    chosen = np.zeros(layers * heads, bool)
    chosen[tried[single < float(base)]] = True
    chosen = jnp.asarray(chosen.reshape(layers, heads))
    rest = [loss(both, mask)[:, settings.length :].mean() for mask in (nowhere, chosen)]
    return dict(
        all=np.array(every),
        plain=np.array(plain),
        hidden_sinks=np.array(hidden),
        single=single,
        tried=tried,
        base=np.asarray(base),
        chosen=np.asarray(loss(some, chosen).mean()),
        held_out=np.array(rest),
        heads=np.asarray(everywhere.sum()),
        slopes=np.where(np.isfinite(slopes), slopes, 0),
    )


@program
def _calibrated(model: Llama, tokens, heads, keep, threshold):
    return _losses(model, tokens, heads, keep, threshold)


@program
def _one_by_one(model: Llama, tokens, masks, keep, threshold):
    loss = lambda heads: _losses(model, tokens, heads, keep, threshold).mean()
    return over_edits(loss, masks, batch_size=SIDE_BY_SIDE)


def _losses(model, tokens, heads, keep, threshold):
    edit = calibration_edit(heads, keep=keep, threshold=threshold)
    return token_losses(lens.run(model, tokens, edits=[edit])[0], tokens)


@program
def _slopes(model: Llama, tokens, threshold):
    """Derivative of the loss by what each head's sinks keep, at 1: if large, less helps."""

    def loss(keep):
        edit = lens.At("probs", _kept, (keep, jnp.full((1,), threshold)))
        return token_losses(lens.run(model, tokens, edits=[edit])[0], tokens).mean()

    return jax.grad(loss)(jnp.ones((model.config.layers, model.config.heads)))


def _kept(probs, data, seen):
    keep, threshold = data
    sinks = calibrated_sinks(probs, threshold)[..., None, :]
    return move_budget(probs, sinks, ~sinks, keep[:, None, None])


@program
def _of_text(model: Llama, tokens, heads, keep, threshold):
    """Loss as it is, loss with heads calibrated, share of heads with a sink behind the first."""
    logits, found = lens.run(model, tokens, record=("probs",))
    sinks = calibrated_sinks(found["probs"], threshold).any(-1).mean()
    calibrated = _losses(model, tokens, heads, keep, threshold).mean()
    return token_losses(logits, tokens).mean(), calibrated, sinks


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 2, width=3.8)
    change = np.sort(found["single"] - found["base"])
    colors = [COLORS[2] if x < 0 else COLORS[1] for x in change]
    axes[0, 0].bar(np.arange(len(change)), change, color=colors)
    label(axes[0, 0], "head, in order", "change of the loss, nats", "calibrated alone")
    limit = np.abs(found["slopes"]).max()
    image = axes[0, 1].imshow(
        found["slopes"], cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", origin="lower"
    )
    figure.colorbar(image, ax=axes[0, 1], shrink=0.8)
    label(axes[0, 1], "head", "layer", "derivative by what sinks keep")
    run.save_figure(
        figure,
        "calibration",
        "Left: change of the loss when the sinks of one head are calibrated. Right: which heads a "
        "gradient says would gain (blue) from sinks that keep less.",
    )
