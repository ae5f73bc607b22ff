"""The tiles that are chosen, from estimates made up for the test."""

import pytest

from experiments.tools import tune


def made_up_cycles(program):
    query, _, part, back_query, back_key, back_part = program.blocks
    if query == 2048:  # The estimator broke down.
        return None
    return {
        "attend_forward.1": 1000 - part // 2,
        "copy": 5,
        "attend_backward.1": {128: 98, 256: 100, 512: 110}[back_part] + back_key // back_query,
    }


def test_what_saves_enough_and_fits_is_chosen(monkeypatch):
    monkeypatch.setattr(tune, "cycles", made_up_cycles)
    monkeypatch.setattr(tune, "compiles", lambda program: program.chip == "v5e")
    counted = []
    chosen, default = (
        tune.choose(chip, 64, "window", lambda: counted.append(1)) for chip in ("v5e", "v6e")
    )
    assert len(counted) == 2 * tune.COMPILATIONS
    # 13 % forward is taken, 2 % backward is not.
    assert (chosen["query"], chosen["key"], chosen["key_part"]) == (1024, 1024, 512)
    assert chosen["backward_key_part"] == 256
    assert list(chosen["forward cycles"]) == [744, 872]
    assert list(chosen["backward cycles"]) == [101, 101]
    # What does not fit the chip is left at the defaults.
    assert default["key_part"] == 256
    assert list(default["forward cycles"]) == [872, 872]


def test_without_libtpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(tune.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        tune.main([])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("tune: libtpu is missing: pip install 'jattn[tpu]'")
