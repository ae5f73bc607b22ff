"""Claims: when they hold, and how they are written and shown."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jattn.training import Claim, Paper
from jattn.training.claims import expectation, own, print_claims, summary, upgraded
from jattn.training.verdicts import median_interval

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
        "verdict": "holds",
        "kind": "paper",
        "note": "rough",
        "seeds": {"n": None, "interval": None},
        "scale": "",
        "figure": "",
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
    ("measured", "seeds", "holding", "verdict"),
    [
        (0.01, [0.01, 0.02, 0.04], 3, "holds"),
        (0.01, [0.01, 0.02, 0.85], 2, "inconclusive"),
        (0.01, [0.01, 0.01, 0.85, 0.85], 2, "inconclusive"),  # the median of half of them
        (0.01, [*8 * [0.01], 0.85], 8, "holds"),  # nine seeds outvote one
        (0.85, [0.7, 0.85, 0.9], 0, "fails"),
        (0.85, [0.01, 0.01, 0.01], 3, "inconclusive"),
        (0.01, [math.nan, math.nan, 0.01], 1, "inconclusive"),
        (math.nan, [0.01], 1, "inconclusive"),
        (0.01, [], 0, "holds"),
    ],
)
def test_seeds_that_disagree_say_so(measured, seeds, holding, verdict, capsys):
    claim = Claim("a", "A.", "s", 0.0, measured, "<=", 0.05, seeds=np.array(seeds))
    assert (claim.seeds_holding, claim.verdict) == (holding, verdict)
    assert claim.holds is (verdict == "holds")
    entry = claim.entry()
    assert (entry["seeds_holding"], entry["verdict"]) == (holding, verdict)
    assert entry["seeds"]["n"] == len(seeds) == len(entry["seeds"]["values"])
    assert (entry["seeds"]["interval"] is None) is (len(seeds) < 2)
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


@pytest.mark.parametrize(
    ("measured", "interval", "verdict"),
    [
        (0.5, (0.4, 0.6), "holds"),
        (0.5, (0.3, 0.7), "inconclusive"),  # round the whole band
        (0.65, (0.55, 0.75), "inconclusive"),
        (0.9, (0.8, 1.0), "fails"),
        (0.1, (0.0, 0.2), "fails"),
    ],
)
def test_a_band_against_an_interval(measured, interval, verdict):
    claim = Claim("a", "A.", "s", 0.5, measured, "~=", 0.1, interval=interval)
    assert claim.verdict == verdict
    assert claim.entry()["seeds"] == {"n": None, "interval": list(interval)}


def test_intervals_cover_the_median_as_often_as_they_say():
    draws = np.random.default_rng(0).exponential(size=(4_000, 9))
    low, high = np.array([median_interval(draw) for draw in draws]).T
    covered = np.mean((low <= math.log(2)) & (math.log(2) <= high))
    assert covered == pytest.approx(1 - 2 * 10 / 2**9, abs=0.01)
    assert median_interval([2.0, 1.0, 3.0]) == (1.0, 3.0)


def test_kinds_are_those_of_sources_and_identities_are_counted_apart():
    paper = Paper("arXiv 0000.00000", "Of slopes")
    values = ("slope", "It is 1/2.", 0.5, 0.52, "~=", 0.05)
    kinds = [
        paper.claim(*values, where="fig. 1").kind,
        paper.claim(*values, because="a half is much").kind,
        paper.claim(*values, derived=True).kind,
        paper.claim(*values, kind="identity").kind,
        Claim(*values[:2], own("chance is 0.25"), *values[2:]).kind,
    ]
    assert kinds == ["paper", "paper", "derived", "identity", "derived"]
    claims = [paper.claim(*values), paper.claim(*values, kind="identity")]
    assert summary(claims) == "1 of 1 claims hold; 1 of 1 identities hold"
    assert summary([claim.entry() for claim in claims]) == summary(claims)
    said = paper.claim(*values, because="a half is much").entry()["note"]
    assert said == "this bound, because a half is much"
    with pytest.raises(ValueError, match="kind: expected one of 'paper', 'derived'"):
        paper.claim(*values, kind="own")
    with pytest.raises(ValueError, match="interval of claim slope: expected low <= high"):
        paper.claim(*values, interval=(1.0, 0.0))


def test_entries_of_earlier_versions_are_read():
    new = Claim("a", "A.", "arXiv 0000.00000", 0.5, 0.52, "~=", 0.05, seeds=[0.52, 0.53]).entry()
    assert upgraded(new) == new
    old = {field: new[field] for field in ("id", "source", "holds", "predicted")}
    assert upgraded(old | {"seeds": [0.52, 0.53]})["seeds"]["values"] == [0.52, 0.53]
    assert upgraded(old)["verdict"] == "holds"
    assert upgraded(old)["seeds"] == {"n": None, "interval": None}
