"""Studies: which are run, in which order, and what becomes of their claims."""

from types import SimpleNamespace

import pytest

from jattn.training import Claim, Run, UsageError, run_studies


@pytest.mark.parametrize(
    ("chosen", "ran"),
    [("all", "abc"), ("c,a", "ac"), ("b,b", "b")],
)
def test_each_chosen_study_runs_once_in_order(tmp_path, chosen, ran):
    calls = []

    def study(name):
        def function(run, config):
            calls.append((name, run, config))
            return [Claim(f"{name}{i}", "A.", "by hand", 1.0, 1.0, "~=") for i in (1, 2)]

        return function

    config = SimpleNamespace(study=chosen)
    with Run.open(tmp_path, {}, name="toy") as run:
        claims = run_studies(run, config, {name: study(name) for name in "abc"})
        assert calls == [(name, run, config) for name in ran]
    assert [claim.id for claim in claims] == [f"{name}{i}" for name in ran for i in (1, 2)]


@pytest.mark.parametrize("chosen", ["a,d", "", "a,all"])
def test_unknown_studies_are_refused_before_any_runs(tmp_path, chosen):
    never = lambda run, config: pytest.fail("it ran")
    with (
        Run.open(tmp_path, {}, name="toy") as run,
        pytest.raises(UsageError, match=r"study: expected any of a, b or all, got '(d||all)'$"),
    ):
        run_studies(run, SimpleNamespace(study=chosen), dict.fromkeys("ab", never))
