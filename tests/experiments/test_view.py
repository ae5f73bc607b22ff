"""The viewer: words of edits, what the page holds, bad input, and the page in a browser."""

import base64
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.view.__main__ import main, page
from experiments.view.contents import contents
from experiments.view.edits import parse_edit, parse_edits
from jattn import lens
from jattn.lens.edits import ablate, heads_of
from tests.browser import needs_chromium, said_in_browser
from tests.tiny_language_model import tiny_language_model

LANGUAGE = tiny_language_model()
SIZES = dict(layers=2, heads=4, length=5)
PROMPT = "One two </script> three"


def edited_logits(*edits):
    tokens = jnp.asarray([[1, 2, 3, 4, 5]])
    return lens.run(LANGUAGE.model, tokens, edits=edits)[0]


def test_edits_in_words_are_those_of_the_lens():
    heads = heads_of([(1, 2), (0, 3)], 2, 4)
    silent = edited_logits(ablate(heads))
    for text in ("ablate:1.2,0.3", "scale:1.2,0.3=0"):
        np.testing.assert_array_equal(edited_logits(parse_edit(text, **SIZES)), silent)
    weight = np.asarray(parse_edit("weigh:0,2=3@1-1", **SIZES).arrays()["weight"])[:, 0, 0]
    assert (weight[0] == 1).all()
    assert weight[1].tolist() == [[3, 1, 3, 1, 1]] * 5
    plain = edited_logits()
    np.testing.assert_allclose(edited_logits(parse_edit("weigh:1=1", **SIZES)), plain, atol=1e-5)
    hidden = edited_logits(parse_edit("hide:0", **SIZES))
    assert np.isfinite(hidden).all()
    assert np.abs(hidden - plain).max() > 1e-4
    assert len(parse_edits(["hide:0", "ablate:0.0"], **SIZES)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ablate", "expected ablate:LAYER.HEAD"),
        ("ablate:7", "expected ablate:LAYER.HEAD.*got 'ablate:7'"),
        ("ablate:2.0", "expected layers 0 to 1 and heads 0 to 3, got \\(2, 0\\)"),
        ("scale:0.0", "expected ablate:"),
        ("hide:5", "token of 'hide:5': expected 0 to 4, got 5"),
        ("weigh:0=2@1-2", "layers of 'weigh:0=2@1-2': expected FROM-TO in 0 to 1"),
        ("melt:0.0", "got 'melt:0.0'"),
    ],
)
def test_other_words_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_edit(text, **SIZES)


def test_what_a_page_holds_is_what_the_model_does():
    edits = parse_edits(["ablate:1.2"], **SIZES)
    found = contents(LANGUAGE, PROMPT, edits, ["ablate:1.2"])
    tokens = LANGUAGE.tokenizer.encode(PROMPT)
    assert "".join(found["tokens"]) == PROMPT
    logits, records = lens.run(LANGUAGE.model, jnp.asarray([tokens]), record=("probs",))
    packed = np.frombuffer(base64.b64decode(found["runs"][0]["maps"]), np.uint8)
    row, column = np.tril_indices(len(tokens))
    maps = np.asarray(records["probs"])[:, 0][..., row, column]
    np.testing.assert_allclose(packed.reshape(maps.shape) / 255, maps, atol=0.51 / 255)
    plain, edited = ({id: p for id, _, p in run["next"]} for run in found["runs"])
    chances = np.sort(np.exp(logits[0, -1] - np.logaddexp.reduce(logits[0, -1])))[::-1]
    np.testing.assert_allclose(list(plain.values()), chances[: len(plain)], atol=1e-4)
    assert plain != edited
    assert found["runs"][0]["lens"][-1][-1] == found["runs"][0]["next"][0][1]
    assert np.shape(found["runs"][0]["sinks"]) == (2, len(tokens))
    assert np.shape(found["scores"]["induction"]) == (2, 4)
    text = page(found)
    assert text.count("</script>") == 1
    assert "src=" not in text
    assert "http" not in text


def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.view.__main__.language_model", lambda path: LANGUAGE)
    out = f"--out={tmp_path / 'view.html'}"
    for flags, message in (
        ([], "the following arguments are required: --prompt"),
        (["--prompt=One"], "--prompt: expected 2 to 256 tokens, got 1"),
        ([f"--prompt={PROMPT}", "--edit=ablate:9.9"], "--edit: heads: expected layers 0 to 1"),
        ([f"--prompt={PROMPT}", "--edit=x"], "--edit: expected ablate:"),
        ([f"--prompt={PROMPT}", f"--out={tmp_path}"], "cannot be written: Is a directory"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([out, *flags])
        said = capsys.readouterr().err.strip()
        assert caught.value.code == 2
        assert "\n" not in said
        assert said.startswith("view: ")
        assert message in said
    with pytest.raises(SystemExit) as caught:
        main([f"--prompt={PROMPT}", out])
    assert caught.value.code == 0
    assert (tmp_path / "view.html").stat().st_size > 5_000


KEYS = """
  const key = k => page.body.dispatchEvent(
    new view.KeyboardEvent("keydown", { key: k, bubbles: true }));
  Object.assign(said, page.body.dataset);
  said.rows = page.querySelectorAll("#lens tr").length;
  ["ArrowUp", "ArrowUp", "ArrowRight", "[", "s", "e"].forEach(key);
  said.after = JSON.stringify({ ...page.body.dataset });
"""


@needs_chromium
@pytest.mark.parametrize("width", [1400, 390])
def test_it_works_in_a_browser(tmp_path, width):
    edits = parse_edits(["ablate:1.2"], **SIZES)
    found = contents(LANGUAGE, "One two three, " * 12, edits, ["ablate:1.2"])
    said = said_in_browser(tmp_path, page(found), width, KEYS)
    assert said.get("ready") == "yes"
    assert "errors" not in said
    assert int(said["overflow"]) <= 0
    assert int(said["rows"]) == 3  # a head line, and two layers
    after = json.loads(said["after"])
    length = len(found["tokens"])
    assert (said["layer"], said["query"]) == ("1", str(length - 1))
    assert (after["layer"], after["head"], after["query"]) == ("0", "1", str(length - 2))
    assert (after["score"], after["run"]) == ("duplicate", "1")
