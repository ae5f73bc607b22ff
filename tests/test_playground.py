"""The playground computes what jattn computes, in 50 settings, and shows it on a phone."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from experiments.tools.site import playground
from experiments.tools.site.playground import Kind
from jattn import masks
from tests.browser import needs_chromium, said_in_browser

MASKS = ("everyone", "causal", "window", "blocks", "documents", "neighborhood")


def settings() -> list[dict]:
    """Fifty, of all kinds of masks, modifications and normalisers, with numbers drawn for each."""
    random = np.random.default_rng(0)
    kinds = list(itertools.product(MASKS, playground.MODIFICATIONS, playground.NORMALIZERS))
    order = random.permutation(len(kinds))[:50]
    draw = lambda low, high: int(random.integers(low, high + 1))
    return [
        dict(
            mask=mask, mod=mod, normalizer=normalizer, tokens=16, tile=int(random.choice([4, 8])),
            offset=draw(0, 5), left=draw(1, 9), right=draw(0, 4), size=draw(1, 9),
            documents=draw(1, 6), window=draw(1, 7), dilation=draw(1, 2), also=bool(draw(0, 1)),
            prefix=draw(0, 5), strength=draw(1, 8) / 4,
            sink=bool(draw(0, 1)) and normalizer != "sigmoid",
            at=int(random.choice(playground.LENGTHS)),
        )
        for mask, mod, normalizer in (kinds[i] for i in order)
    ]  # fmt: skip


def kind(s: dict) -> Kind:
    """What of the table says it."""
    name = s["mask"]
    if name != "everyone" and (s["also"] or s["prefix"]):
        name = "combined"
    elif name == "everyone" and s["also"]:
        name = "combined" if s["prefix"] else "causal"
    return Kind(name, s["mod"], s["normalizer"], s["sink"], s["at"])


def mask_at(s: dict, t: int):
    """The mask of a setting, made here and not by the page."""
    made = {
        "everyone": lambda: None,
        "causal": lambda: masks.causal(s["offset"]),
        "window": lambda: masks.sliding_window(s["left"], s["right"]),
        "blocks": lambda: masks.block_diagonal(s["size"]),
        "documents": lambda: masks.segments(documents(s, t), documents(s, t)),
        "neighborhood": lambda: masks.neighborhood((t,), s["window"], dilation=s["dilation"]),
    }
    mask = made[s["mask"]]()
    if s["also"]:
        mask = masks.causal() if mask is None else mask & masks.causal()
    if s["prefix"] and mask is not None:
        mask = mask | masks.prefix(s["prefix"])
    return mask


def documents(s: dict, t: int) -> np.ndarray:
    count = s["documents"]
    ends = [int(t * ((d + 1) / count) ** 1.5) for d in range(count - 1)]
    return np.searchsorted([*ends, t], np.arange(t), side="right")[None]


def tokens(n: int, dim: int = 8) -> tuple[jax.Array, jax.Array]:
    """Queries and keys as the page makes them."""
    state = 7

    def draw() -> float:
        nonlocal state
        state = (state * 1664525 + 1013904223) % 2**32
        return ((state >> 24) - 128) / 64

    half = np.array([[draw() for _ in range(dim)] for _ in range(-(-n // 2))])
    noise = np.array([[draw() / 2 for _ in range(dim)] for _ in half])
    rows = np.arange(n) % len(half)
    shape = lambda x: jnp.asarray(x[rows][None, :, None], jnp.float32)
    return shape(half + noise), shape(half)


@needs_chromium
def test_the_page_agrees_with_jattn_in_fifty_settings(tmp_path):
    chosen = settings()
    assert len({kind(s) for s in chosen}) > 40
    assert {s["mask"] for s in chosen} == set(MASKS)
    page = playground.page({kind(s): None for s in chosen})
    script = f"said.found = JSON.stringify({json.dumps(chosen)}.map(view.playground.compute));"
    found = json.loads(said_in_browser(tmp_path, page, 1200, script)["found"])
    x, y = tokens(16)
    value = jnp.zeros_like(x)
    for s, r in zip(chosen, found, strict=True):
        # The program that the page shows, as it is, but for the weights.
        made = {"jattn": jattn, "jnp": jnp, "np": np, "query": x, "key": y, "value": value}
        line = "out = jattn.attend("
        assert r["code"].count(line) == 1
        asked = 'return_weights=True, implementation="reference"'
        exec(f"{r['code'][:-1]}, {asked})", made)
        _, weights = made["out"]
        np.testing.assert_allclose(np.array(r["weights"]), weights[0, 0], atol=2e-6, err_msg=str(s))
        mask = mask_at(s, 16)
        shape = (16 // s["tile"],) * 2
        if mask is None:
            assert made.get("mask") is None
            assert np.all(r["visible"])
            assert np.array_equal(r["tiles"], np.full(shape, masks.FULL))
        else:
            np.testing.assert_array_equal(np.array(r["visible"]), mask.dense(16, 16)[0, 0], str(s))
            tiles = np.asarray(made["mask"].tiles(16, 16, s["tile"], s["tile"]))
            np.testing.assert_array_equal(r["tiles"], np.broadcast_to(tiles, shape), str(s))
            assert r["visited"] == pytest.approx((tiles != masks.EMPTY).mean())
        options = dict(
            mask=mask_at(s, s["at"]),
            score_mod=playground.MODIFICATIONS[s["mod"]](s["at"]),
            normalizer=s["normalizer"],
            sink=jnp.zeros(playground.HEADS) if s["sink"] else None,
        )
        for said in r["choices"]:
            choice = playground.choice(said["platform"], s["at"], **options)
            assert said["chosen"] == choice["chosen"], s


@needs_chromium
@pytest.mark.parametrize("width", [1200, 360])
def test_the_page_fits_and_follows_the_choice(tmp_path, width):
    shown = [
        Kind("combined", "none", "softmax", False, 4096),
        Kind("blocks", "soft_cap", "softmax", False, 4096),
    ]
    script = """
      const form = page.getElementById("settings").elements;
      said.before = page.getElementById("visited").textContent;
      form.mask.value = "blocks"; form.prefix.value = 0; form.size.value = 8;
      form.mod.value = "soft_cap";
      form.mod.dispatchEvent(new view.Event("change", {bubbles: true}));
      said.after = page.getElementById("visited").textContent;
      said.code = page.getElementById("code").textContent;
      said.rows = page.getElementById("choices").rows.length;
      said.equation = page.getElementById("equation").textContent;
    """
    said = said_in_browser(tmp_path, playground.page(shown), width, script)
    assert int(said["overflow"]) <= 0
    assert said["before"] == "42 %"  # 11 of 36 tiles touch the window, 4 more the prefix.
    assert said["after"] == "17 %"  # Blocks as large as tiles: 6 of 36.
    assert "block_diagonal(8)" in said["code"]
    assert "scores.soft_cap(2.0)" in said["code"]
    assert said["rows"] == str(len(playground.PLATFORMS))
    assert "tanh" in said["equation"]


def test_the_choices_differ_where_they_should():
    t = 4096
    plain = {name: playground.choice(name, t)["chosen"] for name in playground.PLATFORMS}
    assert plain == {
        "CPU": "blockwise", "TPU v5e": "pallas", "GPU, H100": "cudnn", "GPU, A100": "blockwise",
    }  # fmt: skip
    decayed = playground.choice("TPU v5e", t, score_mod=playground.MODIFICATIONS["decay"](t))
    assert decayed["chosen"] == "blockwise"
    assert "no kernel has" in decayed["refused"]["pallas"]
