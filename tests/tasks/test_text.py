"""Text as tokens: ranks, unknown words, windows, bad files."""

import jax
import numpy as np
import pytest

from jattn.tasks.text import UNKNOWN, english_text, windows, word_tokens


def test_words_are_ranked_by_frequency():
    tokens = word_tokens("b a b c b a", 3)
    assert tokens.words == ("b", "a", UNKNOWN)
    assert tokens.ids.tolist() == [0, 1, 0, 2, 0, 1]
    assert tokens.counts.tolist() == [3, 2, 1]


def test_the_default_text_is_english():
    tokens = word_tokens(english_text(), 2_000)
    assert len(tokens.ids) > 50_000
    assert "the" in tokens.words[:5]
    assert (np.diff(tokens.counts[:-1]) <= 0).all()


def test_windows_are_stretches_of_the_text():
    sample = jax.vmap(windows(np.arange(50), 7))
    drawn = np.asarray(sample(jax.random.split(jax.random.key(0), 500)))
    assert (np.diff(drawn, axis=1) == 1).all()
    assert drawn.min() == 0
    assert drawn.max() == 49


def test_bad_text_is_one_clear_line(plain_checks, tmp_path):
    with pytest.raises(ValueError, match="cannot be read as UTF-8 text"):
        english_text(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match="text: expected some words"):
        word_tokens("  ", 10)
    with pytest.raises(ValueError, match="vocabulary: expected at least 2"):
        word_tokens("a", 1)
    with pytest.raises(ValueError, match="length: expected 1 to 3"):
        windows(np.arange(3), 4)
