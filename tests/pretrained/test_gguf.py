"""GGUF files: each type of tensor by hand, and files that are damaged or foreign."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

from jattn.nn import Llama
from jattn.pretrained.gguf import dequantized, read_gguf
from jattn.pretrained.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf", reason="needs gguf: make lm")
pytest.importorskip("tokenizers", reason="needs tokenizers: make lm")

M, H, G, D, F, V = 32, 4, 2, 8, 64, 40
MATRICES = {
    "attn_q": (H * D, M), "attn_k": (G * D, M), "attn_v": (G * D, M), "attn_output": (M, H * D),
    "ffn_gate": (F, M), "ffn_up": (F, M), "ffn_down": (M, F),
}  # fmt: skip
TYPES = ("Q4_1", "Q8_0", "F16", "F32")
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "Ġ"]


def write(path, architecture="llama", layers=2, extra=False, scaling=None):
    """A tiny Llama with tensors of all types, and a tokenizer; returns its float32 tensors."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(M)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(G)
    writer.add_rope_freq_base(1e4)
    writer.add_layer_norm_rms_eps(1e-5)
    if scaling:
        writer.add_rope_scaling_type(scaling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = TOKENS + [f"t{i}" for i in range(V - len(TOKENS))]
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token[0] == "<" else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (V, M), "output_norm": (M,)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in MATRICES.items()}
        shapes |= {f"blk.{layer}.{name}": (M,) for name in ("attn_norm", "ffn_norm")}
    if extra:
        shapes["blk.0.attn_q.bias"] = (M,)
    tensors = {}
    for index, (name, shape) in enumerate(shapes.items()):
        kind = gguf.GGMLQuantizationType["F32" if len(shape) == 1 else TYPES[index % len(TYPES)]]
        stored = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=kind)
        tensors[name] = stored, kind.name, shape
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def by_hand(stored, kind, shape):
    """Numbers of a tensor from the bytes of its blocks of 32."""
    if kind in ("F32", "F16"):
        return stored.astype(np.float32)
    size = {"Q4_1": 20, "Q8_0": 34}[kind]
    blocks = stored.view(np.uint8).reshape(-1, size)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == "Q8_0":
        return (scale * blocks[:, 2:].copy().view(np.int8)).reshape(shape)
    least, packed = blocks[:, 2:4].copy().view(np.float16).astype(np.float32), blocks[:, 4:]
    return (scale * np.concatenate([packed & 15, packed >> 4], 1) + least).reshape(shape)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(path)
    return path


def test_tensors_of_every_type_are_what_their_bytes_say(tmp_path):
    tensors = write(tmp_path / "tiny.gguf")
    file = read_gguf(tmp_path / "tiny.gguf")
    assert {kind for _, kind, _ in tensors.values()} == set(TYPES)
    for name, (stored, kind, shape) in tensors.items():
        found = dequantized(file, f"{name}.weight", shape)
        np.testing.assert_allclose(found, by_hand(stored, kind, shape), atol=1e-6)


def test_rows_of_queries_and_keys_are_unpaired(path):
    """Channel i of a head was row 2 i, and channel i + d / 2 row 2 i + 1; values stay."""
    file, layers = read_gguf(path), Llama.from_gguf(path).arrays()["layers"]
    stored = dequantized(file, "blk.1.attn_k.weight", (G * D, M)).reshape(G, D, M)
    for i in range(D // 2):
        np.testing.assert_array_equal(layers["key"][1].T.reshape(G, D, M)[:, i], stored[:, 2 * i])
        upper = layers["key"][1].T.reshape(G, D, M)[:, i + D // 2]
        np.testing.assert_array_equal(upper, stored[:, 2 * i + 1])
    value = dequantized(file, "blk.1.attn_v.weight", (G * D, M))
    np.testing.assert_array_equal(layers["value"][1].T, value)


def test_a_tiny_model_and_its_tokenizer_work(path):
    model, tokenizer = Llama.from_gguf(path), Tokenizer.from_gguf(path)
    ids = tokenizer.encode("ab a<|im_end|>")
    assert ids == [5, 6, 3, 2]
    assert tokenizer.decode(ids) == "ab a<|im_end|>"
    assert tokenizer.decode(ids, special=False) == "ab a"
    assert tokenizer.texts([3, 4]) == ["a", "b"]
    ids, mask = tokenizer.batch(["a", "ab a"])
    assert ids.tolist() == [[3, 2, 2], [5, 6, 3]]
    assert mask.sum(1).tolist() == [1, 3]
    assert np.isfinite(model(jnp.asarray(ids), mask=jnp.asarray(mask))).all()
    with pytest.raises(ValueError, match=r"ids: expected 0 to 39, got 40"):
        tokenizer.decode([40])


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with bytes changed, cut off, put in, or a length made absurd."""
    kind, at = rng.integers(5), int(rng.integers(len(data)))
    head = int(rng.integers(min(3000, len(data) - 8)))  # where metadata and lengths are
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:head] + rng.bytes(8) + data[head + 8 :]
    if kind == 2:
        return data[:head] + b"\xff" * 8 + data[head + 8 :]
    if kind == 3:
        return data[:head] + rng.bytes(int(rng.integers(1, 9))) + data[head:]
    return data[:at] + rng.bytes(1) + data[at + 1 :]


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files_load_or_say_so_in_one_line(path, tmp_path, count):
    rng, data, refused = np.random.default_rng(0), path.read_bytes(), 0
    started = time.process_time()
    for index in range(count):
        damaged = tmp_path / f"{index}.gguf"
        damaged.write_bytes(mutated(data, rng))
        try:
            model = Llama.from_gguf(damaged)
            Tokenizer.from_gguf(damaged)
        except ValueError as error:
            refused += 1
            found = str(error)
            assert "\n" not in found
            assert str(damaged) in found
        else:
            assert all(bool(jnp.isfinite(x).all()) for x in model.arrays()["layers"].values())
        damaged.unlink()
    assert refused > count / 2
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gpt2"}, "expected architecture 'llama', got 'gpt2'"),
        ({"extra": True}, "expected 20 tensors of 2 layers, got 21"),
        ({"scaling": gguf.RopeScalingType.YARN}, "unscaled, got 8 of scaling yarn"),
    ],
)
def test_foreign_files_are_refused(tmp_path, options, message):
    write(tmp_path / "other.gguf", **options)
    with pytest.raises(ValueError, match=message):
        Llama.from_gguf(tmp_path / "other.gguf")


def test_a_type_that_is_not_read_is_refused(path):
    file = read_gguf(path)
    name = "blk.0.attn_q.weight"
    kind = file.tensors[name]._replace(tensor_type=gguf.GGMLQuantizationType.Q6_K)
    with pytest.raises(ValueError, match=r"expected one of .*F32.*, got Q6_K"):
        dequantized(file._replace(tensors={name: kind}), name, (M, M))
    with pytest.raises(ValueError, match=r"expected shape \[3, 3\], got \[32, 32\]"):
        dequantized(file, name, (3, 3))
    with pytest.raises(ValueError, match="expected a tensor 'other', found none"):
        dequantized(file, "other", (3, 3))
