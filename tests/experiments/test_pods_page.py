"""The page on pods: its commands are ones that work, as far as can be told without a cloud."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.launch.__main__ import main
from experiments.reproduce import REGISTERED
from experiments.tools import plans
from experiments.tools.chips import check_topology
from jattn.training import configs

PAGE = Path(__file__).parents[2] / "docs" / "pods.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python -m")
]


def of(module):
    return [words[3:] for words in COMMANDS if words[2] == f"experiments.{module}"]


def test_the_scripts_of_the_page_are_sound():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, "--shell=bash", "-"], input="".join(BLOCKS), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("flags", of("launch"), ids=lambda flags: flags[4])
def test_the_launches_of_the_page_are_ones_that_can_be_made(flags, capsys):
    with pytest.raises(SystemExit) as exited:
        main([*flags, "--dry-run"])
    said = capsys.readouterr()
    assert exited.value.code == 0, said.err
    assert "in_context_regression:paper" in said.out


def test_the_plans_of_the_page_are_of_presets_and_pods_that_there_are():
    assert len(of("aot")) == 1
    for flags in of("aot"):
        given = dict(flag.lstrip("-").split("=", 1) for flag in flags)
        path, preset = configs.split(given["config"], "")
        assert preset in configs.load_module(path).PRESETS
        check_topology(given["topology"])


def test_the_table_of_the_page_is_of_registered_experiments():
    table = PAGE.read_text().partition(plans.BEGIN)[2].partition(plans.END)[0]
    names = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)
    assert names == ["experiment", *[name for name in REGISTERED if name in names]]


def test_a_new_plan_takes_the_place_of_the_old_and_leaves_the_others(tmp_path):
    page = tmp_path / "pods.md"
    page.write_text(f"before\n{plans.BEGIN}\n{plans.END}\nafter\n")
    plan = {"topology": "v5e:4x4", "programs": 2, "whole": False, "gib": 1.5, "share": 0.1}
    plan |= {"binds": "memory", "mfu": 0.25, "collectives": None, "chip_hours": 3.0, "left": []}
    whole = plan | {"whole": True, "collectives": 4}
    first, second, third = REGISTERED[1], REGISTERED[3], REGISTERED[5]
    plans.write({second: plans.line_of(second, plan)}, page)
    plans.write({first: plans.line_of(first, whole)}, page)
    plans.write({third: plans.line_of(third, plan | {"left": ["one", "two"]})}, page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[4:7] == [
        f"| {first} | v5e:4x4 | all 2 | 1.5 (10%) | memory | 25.0% | 4 | 3 |",
        f"| {second} | v5e:4x4 | first 2 | 1.5 (10%) | memory | 25.0% | not known | 3 |",
        f"| {third} | v5e:4x4 | 2, without one, two | 1.5 (10%) | memory | 25.0% | not known | 3 |",
    ]
