"""Claims: when they hold, and how they are written and shown."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jattn.training import Claim, Paper
from jattn.training.claims import expectation, print_claims

CASES = [
    ("~=", 1.0, 1.25, 0.25, True),
    ("~=", 1.0, 1.26, 0.25, False),
    ("~=", 1.0, 1.0, None, True),
    ("<=", 1.0, 1.1, None, False),
    ("<=", 1.0, 1.1, 0.2, True),
    (">=", 1.0, 0.9, None, False),
    (">=", 1.0, 0.9, 0.2, True),
    ("<", 1.0, 1.0, None, False),
    (">", 1.0, 1.0, None, False),
    (">", 1.0, 1.0, 0.1, True),
    ("is", True, True, None, True),
    ("is", True, False, None, False),
    ("is", "softmax", "softmax", None, True),
    ("is", math.nan, math.nan, None, False),
    *((relation, 1.0, math.nan, 9.0, False) for relation in ("~=", "<=", ">=", "<", ">")),
    *((relation, math.nan, 1.0, 9.0, False) for relation in ("~=", "<=", ">=", "<", ">")),
    ("<=", 1.0, math.inf, None, False),
]


@pytest.mark.parametrize(("relation", "predicted", "measured", "tolerance", "holds"), CASES)
def test_holds(relation, predicted, measured, tolerance, holds):
    claim = Claim("a", "A.", "by hand", predicted, measured, relation, tolerance)
    assert claim.holds is holds


def test_entry_and_array_numbers():
    claim = Claim("a", "A.", "by hand", np.float32(2), jnp.array(2.5), "~=", 1, note="rough")
    assert claim.entry() == {
        "id": "a",
        "statement": "A.",
        "source": "by hand",
        "predicted": 2.0,
        "measured": 2.5,
        "relation": "~=",
        "tolerance": 1,
        "holds": True,
    }
    assert Claim("a", "A.", "s", 1.0, math.inf, "<=").entry()["measured"] == "inf"


def test_sources_of_claims_say_whose_the_number_is():
    paper = Paper("arXiv 0000.00000", "Of slopes")
    values = ("slope", "It is 1/2.", 0.5, 0.52, "~=", 0.05)
    whole = paper.claim(*values, where="fig. 1", note="rough", seeds=[0.5, 0.54])
    wanted = "arXiv 0000.00000 (Of slopes), fig. 1"
    assert whole == Claim(*values[:2], wanted, *values[2:], "rough", [0.5, 0.54])
    derived = paper.claim(*values, where="fig. 1", derived=True).source
    assert derived == f"derived, in the setting of {wanted}"
    own = paper.claim(*values, because="a half is much").source
    assert own == "own threshold, because a half is much; the effect: arXiv 0000.00000 (Of slopes)"


def test_bad_claims():
    with pytest.raises(ValueError, match=r"relation: expected one of '~='.*, got '=='"):
        Claim("a", "A.", "s", 1.0, 1.0, "==")
    with pytest.raises(ValueError, match="measured of claim a: expected a number"):
        Claim("a", "A.", "s", 1.0, np.ones(2), "~=")
    with pytest.raises(ValueError, match="predicted of claim a: expected a number, got 'one'"):
        Claim("a", "A.", "s", "one", 1.0, "~=")


def test_table_is_at_most_100_columns(capsys):
    long = "word " * 60
    claims = [
        Claim("a-very-long-identifier-of-a-claim", long, "s", 1 / 3, 0.333, "~=", 0.01, note="odd"),
        Claim("b", "B.", "s", 1, 2, "<="),
    ]
    print_claims(claims)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(lines)
    assert "~= 0.3333 ± 0.01" in text
    assert "[odd]" in text
    assert "NO" in text


@pytest.mark.parametrize(
    ("measured", "seeds", "holding", "holds"),
    [
        (0.01, [0.01, 0.02, 0.85], 2, True),
        (0.01, [0.01, 0.01, 0.85, 0.85], 2, False),  # the median of half of them
        (0.85, [0.01, 0.01, 0.01], 3, False),
        (0.01, [math.nan, math.nan, 0.01], 1, False),
        (math.nan, [0.01], 1, False),
        (0.01, [], 0, True),
    ],
)
def test_most_seeds_hold_where_a_claim_does(measured, seeds, holding, holds, capsys):
    claim = Claim("a", "A.", "s", 0.0, measured, "<=", 0.05, seeds=np.array(seeds))
    assert (claim.seeds_holding, claim.holds) == (holding, holds)
    entry = claim.entry()
    assert (entry["seeds_holding"], entry["holds"]) == (holding, holds)
    assert len(entry["seeds"]) == len(seeds)
    print_claims([claim])
    said = " ".join(capsys.readouterr().out.split())
    assert (f"[{holding} of {len(seeds)} seeds hold]" in said) is bool(seeds)
    assert ("nan: not" in said) is math.isnan(measured)


@pytest.mark.parametrize(
    ("relation", "tolerance", "text"),
    [
        ("<=", 0.05, "<= 0.05"),
        ("<", 0.05, "< 0.05"),
        (">=", 0.05, ">= -0.05"),
        ("~=", 0.05, "~= 0 ± 0.05"),
        ("<=", None, "<= 0"),
    ],
)
def test_what_is_expected_is_one_bound(relation, tolerance, text):
    assert expectation(Claim("a", "A.", "s", 0.0, 1.0, relation, tolerance)) == text
