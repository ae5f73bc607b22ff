"""Sinks of a language model that knows nothing, and claims of made-up numbers."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.language_model_sinks import PRESETS, get_config
from experiments.language_model import Texts, texts_of
from experiments.language_model_sinks import run_experiment
from experiments.language_model_sinks.magnets import measured as magnets_of
from experiments.language_model_sinks.phases import MASSIVE, claims_of
from experiments.language_model_texts import TEXTS, excerpts, repeated
from jattn import lens
from jattn.lens.methods.zero_tuning import zero_tuning
from jattn.lens.readouts import token_losses
from jattn.training import Run, UsageError
from tests.tiny_language_model import tiny_language_model

TINY = tiny_language_model()
# Studies have the names of their modules.
calibration, first_token, phases = (
    importlib.import_module(f"experiments.language_model_sinks.{name}")
    for name in ("calibration", "first_token", "phases")
)


def test_what_is_measured_of_a_text():
    found = phases.measured(TINY, "One two three four, five six.")
    tokens = found["tokens"][None]
    maps = lens.run(TINY.model, tokens, record=("probs",))[1]["probs"][:, 0]
    rows = jnp.arange(maps.shape[-1], 0, -1)
    np.testing.assert_allclose(found["alpha"], (maps.sum(2) / rows).mean(1), atol=1e-6)
    np.testing.assert_allclose(found["first"], maps[..., 0].mean(-1), atol=1e-6)
    other = [0, 4, 7]  # the first token, a comma and a full stop
    share = maps[..., jnp.array(other)].sum(-1).mean((1, 2))
    np.testing.assert_allclose(found["noncontent"], share, atol=1e-6)


def test_claims_about_planted_sinks():
    """A secondary sink at token 3 in layers 3 to 9; the first token is massive from layer 12 on."""
    layers, length = 30, 8
    alpha = np.full((layers, length), 0.02)
    alpha[3:10, 3], alpha[3:10, 0], alpha[12:, 0] = 0.25, 0.3, 0.6
    phi = np.where(np.arange(length) == 0, 2.0, 1.0) * np.ones((layers, length))
    phi[12:, 0] = MASSIVE + 1
    one = dict(
        tokens=np.arange(1, length + 1), alpha=alpha, phi=phi, first=alpha[:, None, :1],
        sink_rate=np.array(0.6), kept=np.full(layers, 0.9), key_norm=np.ones(layers),
        value_norm=np.full(layers, 0.3), noncontent=np.full(layers, 0.7),
        written=np.tile(np.where(np.arange(length) == 3, 9.0, 1 + alpha.mean(0)), (layers, 1)),
        sink_cosine=np.full(length, 0.95), sink_norm=np.full(length, 600.0),
        sink_birth=np.full(length, 3), sink_lifetime=np.full(length, 7),
    )  # fmt: skip

    class Language:
        tokenizer = TINY.tokenizer

        class model:
            class config:
                pass

    Language.model.config.layers = layers  # type: ignore
    claims = {c.id: c for c in claims_of(get_config(), Language, dict.fromkeys(TEXTS, one))}  # type: ignore
    assert claims["secondary"].measured == pytest.approx(0.25)
    assert "token 3" in claims["secondary"].note
    assert claims["primary-between"].measured == pytest.approx(0.02 / 0.6)
    assert claims["massive"].measured == pytest.approx(0.6 / alpha[phi <= MASSIVE].mean())
    assert claims["value-drain"].holds
    assert claims["noncontent"].measured == pytest.approx(0.7)


def test_slopes_are_those_of_differences():
    """The derivative by the log of a head's factor, and by what its sinks keep."""
    tokens = jnp.arange(1, 13)[None]
    texts = Texts(tokens, jnp.array([11]))
    found = first_token._slopes(TINY.model, texts)
    heads = jnp.zeros(found.shape).at[1, 2].set(1.0)
    loss = lambda step: first_token._tuned(TINY.model, texts, jnp.exp(step * heads))[0][0]
    np.testing.assert_allclose(found[1, 2], (loss(0.1) - loss(-0.1)) / 0.2, rtol=0.05, atol=1e-6)
    threshold = 0.12
    slopes = calibration._slopes(TINY.model, tokens, threshold)
    change = lambda keep: calibration._calibrated(
        TINY.model, tokens, heads > 0, keep, threshold
    ).mean()
    assert slopes[1, 2] != 0
    np.testing.assert_allclose(
        slopes[1, 2], (change(1.05) - change(0.95)) / 0.1, rtol=0.05, atol=1e-5
    )


def test_padding_changes_no_loss_and_no_entropy():
    """Texts side by side have the numbers of each alone."""
    both = texts_of(TINY.tokenizer, ["One two three four five six.", "One two three."])
    gamma = jnp.full((2, 4), 3.0)
    together = first_token._tuned(TINY.model, both, gamma)
    hidden = first_token._hidden(TINY.model, both, jnp.ones(2, bool))
    assert together[0][0] != together[0][1]
    for row, last in enumerate(both.last.tolist()):
        tokens = both.tokens[row : row + 1, : last + 1]
        alone = Texts(tokens, jnp.array([last]))
        loss, entropy = first_token._tuned(TINY.model, alone, gamma)
        np.testing.assert_allclose(together[0][row], loss[0], rtol=1e-5)
        np.testing.assert_allclose(together[1][row], entropy[0], rtol=1e-5)
        np.testing.assert_allclose(
            hidden[row], first_token._hidden(TINY.model, alone, jnp.ones(2, bool))[0], rtol=1e-5
        )
        edit = zero_tuning(gamma, last + 1)
        logits = lens.run(TINY.model, tokens, edits=[edit])[0]
        np.testing.assert_allclose(loss[0], token_losses(logits, tokens).mean(), rtol=1e-5)


def test_magnets_filter_made_up_maps():
    found = magnets_of(0)
    assert found["blob"].dtype == bool
    assert (found["filtered"] > found["raw"]).mean() > 0.9
    assert ((found["heat"] >= 0) & (found["heat"] <= 1)).all()


def test_texts():
    rows = repeated(np.random.default_rng(0), 50, 3, 8)
    assert rows.shape == (3, 17)
    np.testing.assert_array_equal(rows[:, 1:9], rows[:, 9:])
    assert all(len(set(row[1:9])) == 8 for row in rows)
    assert not rows[:, 0].any()
    assert excerpts(TINY.tokenizer, ["One two three", "One two"], 3).shape == (1, 3)


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    for module in (phases, first_token, calibration):
        monkeypatch.setattr(module, "language_model", lambda path: TINY)
    config: Any = get_config()
    config.update(
        {
            "decoder": {"steps": 2, "seeds": 1, "batch_size": 4, "length": 8, "dim": 8},
            "calibration": {"tried": 2, "length": 8, "first_layer": 0},
            "factors": (0.5, 1.0, 2.0),
            "parallel": {"mesh": {"data": 1}},
        }
    )
    with Run.open(tmp_path, config, name="toy") as run:
        claims = run_experiment(config, run)
    assert len({claim.id for claim in claims}) == len(claims) == 29
    assert len(list((tmp_path / "figures").glob("*.png"))) == 6


def test_a_missing_model_is_one_line(tmp_path):
    config: Any = get_config()
    config.study, config.model = "phases", str(tmp_path / "nowhere.gguf")
    with Run.open(tmp_path / "run", config, name="toy") as run, pytest.raises(UsageError) as caught:
        run_experiment(config, run)
    assert "\n" not in str(caught.value)


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.calibration.tried > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
    assert jax.tree.leaves(get_config().factors)
