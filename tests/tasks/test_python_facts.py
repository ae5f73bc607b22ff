"""Questions about Python's library are answered as the interpreter would."""

import importlib
import inspect

import numpy as np
import pytest

from jattn.tasks import python_facts as facts


@pytest.fixture(scope="module")
def things():
    return facts.python_things()


def test_answers_are_those_of_introspection(things):
    assert len(things) > 150
    rng, words = np.random.default_rng(0), ["definitely_none"]
    said = set()
    for number, thing in enumerate(things):
        value = getattr(importlib.import_module(thing.module), thing.name)
        form = facts.FORMS[number % 4]
        found = facts.answer(things, question := facts.ask(thing, form, rng, words))
        parameters = list(inspect.signature(value).parameters)
        expected = {
            "module": thing.module,
            "kind": "class" if inspect.isclass(value) else "function",
            "parameter": parameters[0],
            "takes": "No" if "definitely_none" in question else "Yes",
        }[form]
        assert found == expected, question
        said.add(found)
    assert {"Yes", "No", "class", "function"} <= said


def test_a_name_is_in_one_module_only(things):
    assert len({thing.name for thing in things}) == len(things)
    everywhere = [thing.name for m in facts.MODULES for thing in facts.python_things([m])]
    twice = {name for name in everywhere if everywhere.count(name) > 1}
    assert not twice & {thing.name for thing in things}


def test_what_is_no_question_has_no_answer(things):
    for text in ("Is `json.dump` a function?", "Is `json.nothing` a function or a class?", ""):
        assert facts.answer(things, text) is None
