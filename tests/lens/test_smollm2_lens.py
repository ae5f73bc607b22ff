"""The lens on a trained language model: sinks, heads and circuits that others measured there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import lens
from jattn.lens import readouts
from jattn.lens.methods.copy_suppression import ov_self_rank
from jattn.lens.methods.head_divergence import head_divergence
from jattn.lens.methods.secondary_sinks import find_sinks
from jattn.lens.patching import activation_patching, patch
from jattn.pretrained.smollm2 import smollm2_tokenizer
from tests.pretrained_model import logits_of, needs_smollm2, smollm2

pytestmark = needs_smollm2
L, H = 30, 9
CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
STORY = (
    "The old lighthouse keeper climbed the spiral stairs every evening at dusk. He carried a "
    "small lantern, a loaf of bread, and a notebook in which he wrote down the names of passing "
    "ships. One winter night a storm broke the great lamp, and the keeper had to light the lantern."
)


def tokens_of(text):
    return jnp.asarray(smollm2_tokenizer().encode(text))[None]


def names():
    return [smollm2_tokenizer().encode(name)[0] for name in (" Mary", " John")]


def difference(logits):
    mary, john = names()
    return logits[0, -1, mary] - logits[0, -1, john]


def test_direct_attribution_of_the_indirect_object():
    np.testing.assert_allclose(difference(logits_of(tokens_of(CLEAN)[0])[None]), 6.1196, atol=2e-3)
    table = smollm2().arrays()["embed"]
    mary, john = names()
    found = readouts.direct_attribution(smollm2(), tokens_of(CLEAN), table[mary] - table[john])
    heads = found["heads"][:, 0]
    total = heads.sum() + found["mlps"].sum() + found["embedding"].sum()
    np.testing.assert_allclose(total, 6.1196, atol=2e-3)
    for place, value in (((23, 3), 2.855), ((29, 1), 1.730), ((24, 4), -1.071), ((29, 0), -1.007)):
        np.testing.assert_allclose(heads[place], value, atol=2e-3)


def test_sinks_in_two_phases():
    """Token 0 and some "the"s in layers 3 to 9; then the first is born anew, alone."""
    tokens = tokens_of(STORY)
    found = lens.run(smollm2(), tokens, record=("probs", "resid_post"))[1]
    probs, resid = found["probs"][:, 0], found["resid_post"][:, 0]
    phi = readouts.massiveness(resid)
    assert (phi[11:29, 0] > 20).all()
    assert (phi[9:11, 0] < 20).all()
    assert (jnp.median(phi[11:29, 1:], axis=1) < 20).all()
    length = jnp.linalg.norm(resid, axis=-1)
    assert (length[11:28, 0] > 10 * length[11:28, 1:].max(1)).all()
    dims = readouts.massive_dims(found["resid_post"][12], 2)
    assert dims.tolist() == [507, 247]
    sinks = find_sinks(probs, resid, threshold=0.15)
    behind = np.flatnonzero(
        (np.asarray(sinks.birth[1:]) >= 2) & (np.asarray(sinks.lifetime[1:]) > 3)
    )
    texts = smollm2_tokenizer().texts(tokens[0, 1:][jnp.asarray(behind)].tolist())
    assert " the" in texts
    strongest = behind[int(np.argmax(np.asarray(sinks.alpha[1:])[behind]))] + 1
    assert sinks.cosine[strongest] > 0.95


def test_two_heads_suppress_copies_by_their_weights():
    tokens = jnp.arange(100) * 480 + 200
    shares = {
        place: ov_self_rank(smollm2(), *place, tokens) for place in ((23, 3), (24, 4), (23, 2))
    }
    assert shares[23, 3].suppression > 0.3
    assert shares[24, 4].suppression > 0.3
    assert shares[23, 2].suppression < 0.05
    assert shares[23, 2].copying > 0.3


@pytest.mark.slow
def test_heads_that_restore_the_indirect_object():
    """All 270 patches in one program, and the ten best of them together."""
    clean, corrupt = tokens_of(CLEAN), tokens_of(CORRUPT)
    effects = activation_patching(smollm2(), clean, corrupt, difference)
    for place, value in (((23, 3), 0.584), ((29, 1), 0.265), ((20, 0), 0.216), ((24, 4), -0.25)):
        np.testing.assert_allclose(effects[place], value, atol=2e-3)
    value = lens.run(smollm2(), clean, record=("z",))[1]["z"]
    least, most = (difference(smollm2()(text)) for text in (corrupt, clean))

    def together(indices):
        heads = lens.heads_of([divmod(int(i), H) for i in indices], L, H)
        logits = patch(smollm2(), corrupt, value, heads)
        return float((difference(logits) - least) / (most - least))

    best = np.argsort(-np.asarray(effects), axis=None)[:10]
    assert together(best) > 0.5
    rng = np.random.default_rng(0)
    assert all(together(rng.choice(L * H, 10, replace=False)) < 0.2 for _ in range(5))


def test_more_weight_on_a_fact_in_all_heads_makes_its_name_less_likely():
    """And the heads that read most of it are few and late. The fact's last token is a space."""
    encode = smollm2_tokenizer().encode
    fact, asked = encode("Anna's dog is called Biscuit. "), encode("The name of Anna's dog is")
    both, alone = jnp.asarray(fact + asked)[None], jnp.asarray(asked)[None]
    name, t = encode(" Biscuit")[0], len(fact)
    place = jnp.arange(both.shape[1])
    there = (place[:, None] >= t) & (place >= 1) & (place < t)
    layers = (jnp.arange(L) >= 10) & (jnp.arange(L) <= 24)

    def said(tokens, bias):
        edit = lens.LogitBias(bias * layers[:, None, None, None, None] * there)
        logits, seen = lens.run(smollm2(), tokens, edits=[edit] if bias else [], record=("z",))
        return jax.nn.log_softmax(logits[0, -1])[name], seen["z"][:, 0, -1]

    found = [said(both, 0.0), said(alone, 0.0), said(both, 1.0), said(both, 2.0)]
    logs = [log for log, _ in found]
    np.testing.assert_allclose(logs, [-2.117, -5.650, -2.669, -3.217], atol=2e-3)
    divergence = head_divergence(found[0][1], found[1][1])
    best = [divmod(int(i), H) for i in np.argsort(-np.asarray(divergence), axis=None)[:5]]
    assert best == [(28, 2), (29, 0), (29, 1), (24, 4), (23, 0)]
    values = [divergence[place] for place in best]
    np.testing.assert_allclose(values, [10.91, 6.70, 6.20, 5.34, 5.21], atol=0.01)
