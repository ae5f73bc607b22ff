"""The register: what is listed, what others add to it, and what it refuses in one line."""

import subprocess
import sys
from typing import Any

import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.mechanism import KINDS

RETENTION = zoo.info("retention")


@pytest.fixture
def registered(monkeypatch):
    """Leaves the register as it was."""
    monkeypatch.setattr(zoo, "_REGISTERED", dict(zoo._REGISTERED))


def test_names_by_kind_and_family(plain_checks):
    assert zoo.names() == tuple(n for _, n in sorted((m.family, m.name) for m in zoo.MECHANISMS))
    by_kind = [zoo.names(kind=kind) for kind in KINDS]
    assert sorted(sum(by_kind, ())) == sorted(zoo.names())
    assert all(zoo.info(n).kind == kind for kind in KINDS for n in zoo.names(kind=kind))
    assert "softmax_attention" in zoo.names(kind="mixer", family="softmax")
    assert {zoo.info(n).family for n in zoo.names(family="memory")} == {"memory"}
    wrong: Any = "mixers"
    with pytest.raises(ValueError, match=r"kind: expected one of 'mixer', .*, got 'mixers'"):
        zoo.names(kind=wrong)
    with pytest.raises(ValueError, match=r"family: expected one of 'channel', .*, got 'softmx'"):
        zoo.names(family="softmx")


def test_registered_is_listed_found_and_made(registered):
    zoo.register(mine := RETENTION._replace(name="mine", family="ours"))
    zoo.register(mine)  # the same again is nothing new
    assert zoo.names(family="ours") == ("mine",)
    assert zoo.info("Mine") is mine
    assert zoo.make("mine", dim=8, heads=2, causal=True).step is not None
    with pytest.raises(ValueError, match="did you mean mine"):
        zoo.info("mines")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(name="retention"), "name: 'retention' is in the zoo already: "),
        (dict(name="retnet"), "name: 'retnet' is in the zoo already: "),
        (dict(name="Mine!"), "name: expected lower_case_words, got 'Mine!'"),
        (dict(title=""), "title: expected a text, got ''"),
        (dict(family=None), "family: expected a text, got None"),
        (dict(make="make"), "make: expected a function, got 'make'"),
        (dict(cost="cubic"), "cost: expected one of 'linear', .*, got 'cubic'"),
        (dict(kind="mixers"), "kind: expected one of 'mixer', .*, got 'mixers'"),
        (dict(streaming=1), "streaming: expected True or False, got 1"),
        (dict(causal=False, bidirectional=False), "causal: mine is neither causal nor"),
        (dict(parameters="gate"), "parameters: expected a tuple of names, got 'gate'"),
        (dict(absent=(1,)), r"absent: expected a tuple of names, got \(1,\)"),
    ],
)
def test_refused_in_one_line(registered, plain_checks, wrong, said):
    with pytest.raises(ValueError, match=f"^{said}") as error:
        zoo.register(RETENTION._replace(**(dict(name="mine") | wrong)))
    assert "\n" not in str(error.value)
    assert "mine" not in zoo.names()


def test_what_is_no_mechanism_is_refused(registered, plain_checks):
    fields: Any = {"name": "mine"}
    with pytest.raises(ValueError, match="mechanism: expected a Mechanism, got a dict"):
        zoo.register(fields)


PACKAGE = """
import jax

from jattn.checks import check_count
from jattn.mechanisms import zoo
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mechanism import Mechanism


def factors(params, x, real=None):
    return jax.nn.sigmoid(linear(x, params["gate"]))


def make(*, dim):
    check_count("dim", dim)
    init = lambda key: {"gate": linear_init(key, dim, dim)}
    return framed_gate("own_gate", dim=dim, init=init, factors=factors)


ONE = Mechanism(
    name="own_gate",
    title="A gate of another package",
    arxiv="",
    family="channel",
    equation="y = x * sigmoid(x W)",
    core=factors,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("gate",),
)
BASE = zoo.info("linear_attention")
TWO = [BASE._replace(name="left_attention"), BASE._replace(name="right_attention")]
"""
ENTRIES = """[jattn.mechanisms]
one = others_attention:ONE
two = others_attention:TWO
wrong = others_attention:make
gone = others_attention:GONE
lost = no_such_package:MECHANISM
"""
PROGRAM = """
import warnings
import jattn

assert jattn.zoo.info("retention").name == "retention"
assert "others_attention" not in __import__("sys").modules  # found when asked for, not before
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert {"own_gate", "left_attention", "right_attention"} <= set(jattn.zoo.names())
said = [str(w.message) for w in caught if "could not load" in str(w.message)]
assert len(said) == 3, said
assert any("gone = others_attention:GONE (AttributeError: " in line for line in said), said
assert any("lost = no_such_package:MECHANISM (ModuleNotFoundError: " in line for line in said)
assert any("(ValueError: mechanism: expected a Mechanism" in line for line in said), said
try:
    jattn.zoo.info("lost")
except ValueError as error:
    assert "not loaded: " in str(error) and "lost = no_such_package" in str(error), error
assert "own_gate" in jattn.zoo.names(kind="gate")
jattn.testing.check_mechanism("own_gate")
"""


@pytest.mark.smoke
def test_an_installed_package_adds_its_own(tmp_path):
    """By entry points; those that cannot be loaded are named, and break nothing."""
    (tmp_path / "others_attention.py").write_text(PACKAGE)
    information = tmp_path / "others_attention-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: others-attention\n")
    (information / "entry_points.txt").write_text(ENTRIES)
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]"
    subprocess.run([sys.executable, "-c", path + PROGRAM], check=True)
