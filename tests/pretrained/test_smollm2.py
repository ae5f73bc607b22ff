"""SmolLM2-135M: its tokens, its weights, and what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.nn import generate
from jattn.pretrained import smollm2 as module
from jattn.pretrained.gguf import dequantized
from jattn.pretrained.smollm2 import chat, smollm2_file, smollm2_path, smollm2_tokenizer
from tests.pretrained_model import logits_of, needs_smollm2, smollm2

pytestmark = needs_smollm2
# What another implementation of the tokenizer gives.
TOKENS = {
    "The capital of France is": [504, 3575, 282, 4649, 314],
    "naïve café — 東京 🙂": [3546, 46494, 37366, 1841, 17097, 247, 126, 16736, 122, 47526],
}


def test_tokens():
    tokenizer = smollm2_tokenizer()
    for text, ids in TOKENS.items():
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("a  7")[1] == 256  # two spaces are one token in front of a digit
    one_by_one = tokenizer.encode("2026")
    assert tokenizer.texts(one_by_one) == list("2026")
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.end == 2
    assert tokenizer.vocab_size == smollm2().vocab_size


def test_chats_are_as_the_files_own_template_has_them():
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(smollm2_file().metadata["tokenizer.chat_template"])
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for messages in (turns, [{"role": "system", "content": "Be brief."}, *turns], turns[:1]):
        for answer in (True, False):
            expected = template.render(messages=messages, add_generation_prompt=answer)
            assert chat(messages, answer=answer) == expected
    with pytest.raises(ValueError, match="messages: expected at least one"):
        chat([])
    with pytest.raises(ValueError, match="'role': one of system, user, assistant"):
        chat([{"role": "robot", "content": ""}])


def test_checksums_of_weights():
    """Sums and mean magnitudes of dequantised tensors, measured with another implementation."""
    file = smollm2_file()
    for name, shape, total, magnitude in (
        ("token_embd", (49152, 576), -15353.045, 0.0989756),
        ("blk.0.attn_q", (576, 576), 59.22322, 0.1910789),
        ("blk.0.attn_k", (192, 576), 26.93706, 0.2694117),
        ("blk.0.ffn_down", (576, 1536), 150.6358, 0.1451937),
        ("blk.0.attn_norm", (576,), 0.6129436, None),
        ("output_norm", (576,), 1038.332, None),
    ):
        array = dequantized(file, f"{name}.weight", shape)
        np.testing.assert_allclose(array.sum(dtype=np.float64), total, rtol=1e-5)
        if magnitude:
            np.testing.assert_allclose(np.abs(array).mean(dtype=np.float64), magnitude, rtol=1e-5)


def test_it_knows_the_capital_of_france():
    """Rows in the wrong order of rotary positions give " Paris" too, with 0.72 for 0.77."""
    logits = logits_of(TOKENS["The capital of France is"])
    assert smollm2_tokenizer().decode([int(logits[-1].argmax())]) == " Paris"
    np.testing.assert_allclose(jax.nn.softmax(logits[-1]).max(), 0.77254, atol=1e-4)


@pytest.mark.slow
def test_it_answers_in_a_batch_with_padding_as_alone():
    tokenizer = smollm2_tokenizer()
    questions = ("What is the capital of France?", "Name the capital city of Italy, please.")
    ids, mask = tokenizer.batch([chat([{"role": "user", "content": q}]) for q in questions])
    new = generate(smollm2(), jnp.asarray(ids), 8, mask=jnp.asarray(mask), end=tokenizer.end)
    assert tokenizer.decode(new[0].tolist(), special=False) == "The capital of France is Paris."
    shorter = int(np.argmin(mask.sum(1)))
    prompt = jnp.asarray(ids[shorter][mask[shorter]])[None]
    alone = generate(smollm2(), prompt, 8, end=tokenizer.end)
    np.testing.assert_array_equal(new[shorter], alone[0])


def test_a_missing_wheel_is_one_line(monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match="smollm2-135m is not installed: make lm"):
        smollm2_path()
