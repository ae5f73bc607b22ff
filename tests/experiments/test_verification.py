"""Verification and manifests: what changed between runs, and what standards ask to be said."""

import json

import pytest
import yaml

from experiments import manifests, reproduce, verification
from jattn.training import Claim, configs
from jattn.training.config_checks import leaves
from jattn.training.stores import folder_of

PAPER = "arXiv 0000.00000 (Of slopes)"


def entry(id, measured, **more):
    return Claim(id, "S.", PAPER, 1.0, measured, "<=", **more).entry()


@pytest.mark.parametrize("name", reproduce.REGISTERED)
def test_variants_change_fields_that_are_there(name):
    config = leaves(configs.load(configs.load_module(name), name, None).to_dict())
    for variant in verification.VARIANTS:
        changed = verification.fields(name, "small", variant)
        assert changed
        assert changed.keys() <= config.keys()
        assert all(config[field] != value for field, value in changed.items())
        flags = reproduce.command_of(name, "small", folder_of("runs"), changed)[5:]
        configs.override(configs.load_module(name), name, "small", flags)


def test_a_flip_that_an_interval_foretold_is_another_thing_than_one_that_it_did_not(capsys):
    before = [entry("a", 0.5), entry("b", 0.9, interval=(0.8, 1.1)), entry("c", 0.5), entry("d", 2)]
    after = [entry("a", 1.5), entry("b", 1.2), entry("d", 3)]
    found = verification.changes("toy", "seed", before, after)
    assert [(c.claim, c.before, c.after, c.said) for c in found] == [
        ("a", "holds", "fails", False),
        ("b", "inconclusive", "fails", True),
    ]
    verification.print_changes(found, 3)
    text = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 verdicts changed, 1 without an interval that said so" in text
    assert "0.5 -> 1.5" in text


@pytest.mark.parametrize(("flipped", "status"), [(True, 3), (False, 0)])
def test_verify_runs_variants_and_compares_them(tmp_path, monkeypatch, flipped, status, capsys):
    commands = []

    class Recorded(reproduce._PassingOn):
        def run(self, command):
            commands.append(command)
            folder = tmp_path / next(c for c in command if "--workdir" in c).partition("=")[2]
            folder.mkdir(parents=True)
            other = flipped and "size" in folder.name
            claims = [entry("a", 2.0 if other else 0.5)]
            (folder / "claims.json").write_text(json.dumps(claims))
            return 3

    monkeypatch.setattr(reproduce, "_PassingOn", Recorded)
    assert reproduce.verify(["factor_graph"], "small", folder_of(str(tmp_path))) == status
    given = [[flag for flag in command if "--config." in flag] for command in commands]
    assert given == [[], ["--config.seed=1000"], ["--config.steps=1500"], ["--config.causes=10"]]
    assert len(json.loads((tmp_path / "verify" / "changes.json").read_text())) == flipped
    assert "verdicts changed" in capsys.readouterr().out


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "toy"
    (folder / "figures").mkdir(parents=True)
    claims = [entry("slope", 0.5, figure="line"), entry("loss", 2.0)]
    (folder / "claims.json").write_text(json.dumps(claims))
    (folder / "figures" / "captions.json").write_text(json.dumps({"line": "A line."}))
    (folder / "figures" / "line.png").write_bytes(b"")
    session = {"command": "python -m toy", "started": "2026-01-02T03:04:05+00:00", "commit": "abc",
               "versions": {"jax": "1"}, "device": "1 x cpu"}  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps([session]))
    return folder_of(str(tmp_path)), {"toy": folder_of(str(folder))}


def test_codecheck_lists_the_files_in_which_to_see_the_claims(finished):
    workdir, runs = finished
    found = yaml.safe_load(manifests.export("codecheck", workdir, runs).read_text())
    assert {"version", "paper", "manifest", "codechecker", "check_time"} <= found.keys()
    assert found["paper"]["title"] == "Of slopes"
    assert found["paper"]["reference"] == ["https://arxiv.org/abs/0000.00000"]
    files = {item["file"]: item["comment"] for item in found["manifest"]}
    assert files["toy/figures/line.png"] == "toy: A line. Claims: slope."
    assert "1 of 2 claims hold" in files["toy/claims.json"]
    assert all((workdir / file).exists() for file in files)


def test_a_crate_describes_itself_and_everything_it_refers_to(finished):
    workdir, runs = finished
    crate = json.loads(manifests.export("ro-crate", workdir, runs).read_text())
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert entities["./"]["hasPart"] == [{"@id": "toy/"}]
    assert entities["#toy-1"]["name"] == "python -m toy"

    def referred(value):
        if isinstance(value, list):
            return {id for item in value for id in referred(item)}
        return {value["@id"]} if isinstance(value, dict) else set()

    for entity in crate["@graph"]:
        for field, value in entity.items():
            if field not in ("conformsTo", "license"):
                assert referred(value) <= entities.keys(), field


def test_export_of_nothing_is_one_line(tmp_path, capsys):
    for flags, message in (
        (["--export=codecheck"], "--export: expected finished runs of preset small, none in"),
        (["--export=zip"], "invalid choice: 'zip'"),
        (["--export=codecheck", "--verify"], "--export: expected no --verify beside it"),
    ):
        with pytest.raises(SystemExit) as stopped:
            reproduce.main([*flags, f"--workdir={tmp_path}"])
        assert stopped.value.code == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
