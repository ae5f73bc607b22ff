"""Claims: when they hold, and how they are written and shown."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jattn.training import Claim
from jattn.training.claims import print_claims

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
