"""The experiment at toy sizes: its lessons, what it keeps of what is written, its scores."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.self_specialization import PRESETS, get_config
from experiments.self_specialization import expert, python_expert, run_experiment
from experiments.self_specialization.python_expert import Item
from experiments.word_models import word_model
from jattn.nn.llama import llama_init
from jattn.tasks import domain_facts as facts
from jattn.tasks import python_facts
from jattn.training import Run, UsageError
from tests.tiny_language_model import tiny_language_model, use_it

TOY = {
    "steps": 2, "batch_size": 2, "dim": 8, "heads": 2, "layers": 1, "hidden": 8, "test_size": 8,
    "instructions": 8, "tuning_steps": 2, "tuning_batch": 2, "rank": 1, "large_rank": 2,
    "examples": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return facts.domain_facts(jax.random.key(0))


def toy(**changes) -> Any:
    config: Any = get_config()
    config.update({**TOY, "parallel": {"mesh": {"data": 1}}, **changes})
    return config


def test_lessons_are_questions_and_their_answers(world):
    draw = jax.jit(jax.vmap(functools.partial(expert.sample_lesson, world)))
    tokens, counts = map(np.asarray, draw(jax.random.split(jax.random.key(1), 60)))
    truth, read = np.asarray(world.truth), 0
    for row, learned in zip(tokens, counts, strict=True):
        row = row[row != facts.PAD]
        starts = np.flatnonzero(row == facts.ASK)
        ends = np.flatnonzero(row == facts.END)
        assert 1 <= len(starts) == len(ends) <= expert.SHOTS + 1
        assert not learned[len(row) :].any()
        told = np.flatnonzero(row == facts.DOCUMENT)
        assert len(told) in (0, 2)
        read += len(told) > 0
        styles = set()
        for start, end in zip(starts, ends, strict=True):
            split = start + int(np.flatnonzero(row[start:] == facts.ANSWER)[0]) + 1
            question, answer = row[start:split], row[split : end + 1]
            facts.parse(question)
            styles.add((facts.SO in answer, facts.INDEED in answer))
            domain = expert._domain(question.tolist())
            last = end == ends[-1]
            if not (last and len(told)):
                assert set(answer) & facts.right_content(truth, domain, question)
            assert learned[start : end + 1].all()
        assert len(styles) == 1
        if len(told):
            assert not learned[told[0] : told[0] + 2 * facts.FACTS].any()
    assert 10 < read < 40


def test_what_is_read_answers_the_question(world):
    rows = expert.questions(world, 1, 20, 3)
    assert len({tuple(row) for row in rows}) == 20
    for row, told in zip(rows, expert.documents_of(world, 1, rows), strict=True):
        form, entity, _ = facts.parse(np.array(row))
        if form != facts.WHO:
            assert any(facts.FIRST_ENTITY + facts.ENTITIES + entity in one for one in told)


def test_only_new_questions_of_the_domain_are_kept(world, monkeypatch):
    seeds = expert.answered_rightly(world, 0, 2, expert.questions(world, 0, 4, 5, covered=True))
    fresh = expert.questions(world, 0, 300, 6)
    made = [fresh[0], fresh[0], seeds[0].question, expert.questions(world, 1, 1, 7)[0], [1, 2],
            fresh[1], fresh[2]]  # fmt: skip

    def written(llama, weights, tokens, sizes, key):
        rows = [row[1:] for row in (made * 100)[: len(tokens)]]
        return np.array([row + [0] * (8 - len(row)) for row in rows])

    monkeypatch.setattr(expert, "_written", written)
    nobody: Any = None  # what would write is replaced
    kept, share = expert.instructions(nobody, nobody, seeds, 8, [fresh[1]], 0)
    assert share == 18 / 24  # five of seven, three times over, and three more
    assert fresh[1] not in kept
    assert seeds[0].question not in kept
    assert len({tuple(row) for row in kept}) == len(kept)
    assert set(map(tuple, kept)) <= {tuple(fresh[0]), tuple(fresh[2])}


def test_adapters_of_no_steps_are_the_base_and_scores_count_style(world):
    config = toy()
    llama = word_model(config, facts.VOCABULARY)
    weights = llama_init(jax.random.key(0), llama)
    rows = expert.questions(world, 0, 6, 8)
    pairs = expert.answered_rightly(world, 0, 1, rows)
    config.tuning_rate = 0.0
    same = expert.tuned(config, llama, weights, pairs, rank=2, seed=0)
    jax.tree.map(np.testing.assert_array_equal, same, weights)
    said = [pair.answer for pair in pairs]
    assert expert.scores(world, 0, 1, rows, said).whole.all()
    other = expert.scores(world, 0, 2, rows, said)
    assert other.content.all()
    assert not other.whole.any()
    assert not expert.scores(world, 0, 1, rows, [[facts.END]] * 6).content.any()


def test_styles_and_bad_questions():
    content = jnp.array([facts.YES, facts.NO])
    for style in range(facts.STYLES):
        said = np.asarray(facts.reply(content, jnp.array(style)))
        assert (said == facts.END).sum(1).tolist() == [1, 1]
    with pytest.raises(ValueError, match="tokens: expected a question"):
        facts.parse(np.array([facts.ASK, facts.VALUE, facts.ANSWER]))
    with pytest.raises(ValueError, match="that go together"):
        facts.parse(np.array([facts.ASK, facts.VALUE, facts.FIRST_ENTITY,
                              facts.FIRST_RELATION + facts.RELATIONS, facts.ANSWER]))  # fmt: skip
    with pytest.raises(ValueError, match="covered: expected at most 1"):
        facts.domain_facts(jax.random.key(0), covered=2.0)


@pytest.mark.slow
def test_every_claim_is_stated(tmp_path, monkeypatch, world):
    # A model that has learned nothing writes no question: some are put in its mouth.
    asked = expert.questions(facts.domain_facts(jax.random.key(0)), 0, 30, 99)
    monkeypatch.setattr(expert, "instructions", lambda *args: (asked[:8], 0.5))
    with Run.open(tmp_path, toy(), name="self_specialization") as run:
        claims = run_experiment(toy(), run)
    assert len({claim.id for claim in claims}) == len(claims) == 9
    assert (tmp_path / "figures" / "domains.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": 5}, "examples: expected at least 6, got 5"),
        ({"covered": 1.5}, r"covered: expected a number in \[0, 1\], got 1.5"),
        ({"style": 4}, "style: expected 0 to 3, got 4"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    config = toy(**change)
    with (
        Run.open(tmp_path, config, name="toy") as run,
        pytest.raises(UsageError, match=message),
    ):
        run_experiment(config, run)
    studies = [get_config(preset).study for preset in PRESETS]
    assert studies == ["domains", "all", "all"]


@pytest.fixture
def two_modules(monkeypatch):
    few = python_facts.python_things(["json", "textwrap"])
    monkeypatch.setattr(python_facts, "python_things", lambda: few)
    return few


def test_questions_of_the_seeds_are_not_those_of_the_test(two_modules):
    rng = np.random.default_rng(0)
    found = python_expert.items(two_modules, python_expert.SEEN, 12, rng)
    assert len({item.question for item in found}) == 12
    assert [item.answer for item in found] == [
        python_facts.answer(two_modules, item.question) for item in found
    ]


def test_written_questions_differ_and_are_questions(monkeypatch, two_modules):
    names = ("dump", "load", "JSONEncoder", "JSONDecoder", "wrap", "fill", "indent", "dedent")
    seeds = [Item(f"Is `json.{name}` a function or a class?", "function") for name in names]
    said = [
        "Is `json.loads` a function or a class?", "Is `json.loads` a function or a class?",
        "Is `json.load` a function or a class?", "It is.", "Is `re.match` a function or a class?",
    ]  # fmt: skip
    monkeypatch.setattr(python_expert, "continued", lambda *args: said)
    model = tiny_language_model()
    kept = python_expert.written(model.model, model.tokenizer, seeds, 9, [said[4]], 0)
    assert kept == [said[0]]


def test_an_answer_is_right_without_its_quotes():
    assert python_expert.right("`json`.", "json")
    assert not python_expert.right("json or so", "json")


@pytest.mark.slow
def test_a_language_model_makes_an_expert(tmp_path, monkeypatch, two_modules):
    use_it(monkeypatch, "experiments.self_specialization")
    settings = {"examples": 6, "instructions": 8, "questions": 2, "steps": 1, "batch_size": 2}
    monkeypatch.setattr(python_expert, "written", lambda *args: [item.question for item in args[2]])
    config = toy(study="python", python=settings | {"rank": 1})
    with Run.open(tmp_path, config, name="self_specialization") as run:
        claims = run_experiment(config, run)
    assert [claim.id for claim in claims] == [
        "python-seeds", "python-self", "python-documents", "python-unseen"
    ]  # fmt: skip
    assert (tmp_path / "figures" / "python.png").stat().st_size > 5_000
