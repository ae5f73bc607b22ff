"""What experiments on the language model share: texts, programs, training beside frozen weights."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.language_model import (
    batches_of,
    first_tokens,
    language_model,
    minimizer,
    next_logits,
    random_heads,
    texts_of,
    top_heads,
)
from jattn import lens
from jattn.pretrained.tokenizer import Tokenizer
from jattn.training import UsageError
from tests.tiny_language_model import tiny_language_model

MODEL, TOKENIZER = tiny_language_model()


def test_padding_behind_a_text_changes_nothing():
    found = next_logits(MODEL, texts_of(TOKENIZER, ["One two", "One two three four"]))
    alone = next_logits(MODEL, texts_of(TOKENIZER, ["One two"]))
    np.testing.assert_allclose(found[0], alone[0], atol=1e-5)
    assert TOKENIZER.decode(first_tokens(TOKENIZER, ["two"])) == " two"


def _pull(model, params, given, batch):
    logits = lens.run(model, batch, edits=[lens.HeadAffine(params)])[0]
    return ((logits[:, -1, 0] - given) ** 2).mean()


def test_edits_are_trained_beside_frozen_weights():
    tokens = texts_of(TOKENIZER, ["One two three", "Four five six"]).tokens
    batches = batches_of(np.random.default_rng(0), tokens, steps=60, size=2)
    assert batches.shape == (60, 2, 3)
    start = jnp.zeros((2, 4, 1))
    train = minimizer(_pull, optax.adam(0.1))
    params, losses = train(MODEL, start, 0.3, batches)
    assert losses[-1] < 0.5 * losses[0]
    assert np.isfinite(params).all()


def test_trainings_side_by_side_are_those_one_by_one():
    tokens = texts_of(TOKENIZER, ["One two three", "Four five six"]).tokens
    rng = np.random.default_rng(0)
    batches = jnp.stack([batches_of(rng, tokens, steps=5, size=1) for _ in range(2)])
    start, given = jnp.stack([jnp.zeros((2, 4, 1)), jnp.ones((2, 4, 1))]), jnp.array([0.3, -0.2])
    together = minimizer(_pull, optax.adam(0.1), together=True)
    params, losses = together(MODEL, start, given, batches)
    one = minimizer(_pull, optax.adam(0.1))
    for number in range(2):
        found = one(MODEL, start[number], given[number], batches[number])
        np.testing.assert_allclose(params[number], found[0], atol=1e-4)
        np.testing.assert_allclose(losses[number], found[1], rtol=1e-4)
    assert np.abs(params[0] - params[1]).max() > 0.1


def test_batches_show_every_example_before_any_twice():
    found = batches_of(np.random.default_rng(0), np.arange(6), steps=3, size=4)
    assert sorted(np.ravel(found)[:6].tolist()) == list(range(6))


def test_heads():
    scores = jnp.array([[0.1, 0.5], [0.3, 0.2]])
    assert top_heads(scores, 2).tolist() == [[False, True], [True, False]]
    assert random_heads(np.random.default_rng(0), 3, 4, 5).sum() == 5


def test_a_model_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="needs gguf: make lm")
    with pytest.raises(UsageError, match=r"^model: .*nowhere\.gguf") as caught:
        language_model(str(tmp_path / "nowhere.gguf"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"expected a folder with config\.json"):
        language_model(str(tmp_path))


def test_a_tokenizer_of_a_folder(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers: make lm")
    with pytest.raises(ValueError, match=r"expected a tokenizer\.json in it, found none"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="damaged tokenizer"):
        Tokenizer.from_folder(tmp_path)
    vocabulary = {"Hello": 0, "world": 1, "[UNK]": 2}
    engine = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    engine.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    engine.add_special_tokens(["<end>"])
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("Hello world") == [0, 1]
    assert (tokenizer.vocab_size, tokenizer.end) == (4, 3)
    assert tokenizer.batch(["Hello", "Hello world"])[0].tolist() == [[0, 3], [0, 1]]
