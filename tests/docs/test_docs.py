"""What the documents say is checked: links, commands, the five lines, the generated reference, both languages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import llm_os
from llm_os import errors, plugins
from llm_os.cli.main import VERBS
from llm_os.settings import Settings
from llm_os.spec.conditions import Reason

ROOT = Path(__file__).parent.parent.parent
FIVE = """import llm_os
llm_os.set_resources(gpus=[0, 1], cpus=4)
model = llm_os.load_model("transformer")
train_data, test_data = llm_os.load_data("sentic_data")
model.train(train_data, epochs=10)
model.evaluate(test_data)
"""
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_five_lines_stand_word_for_word_in_the_readme(name: str) -> None:
    assert FIVE in (ROOT / name).read_text()


def test_the_example_begins_with_the_five_lines() -> None:
    assert FIVE.split("\n", 1)[1] in (ROOT / "examples" / "sentiment.py").read_text()


def test_both_readmes_show_the_same_code_and_output() -> None:
    def blocks(name: str) -> list[str]:
        found = re.findall(r"```(?:python|text)\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
        return [re.sub(r"\s*#.*", "", block) for block in found]

    assert blocks("README.md") == blocks("README.zh-CN.md")


def test_what_the_readme_shows_has_the_form_that_evaluate_prints() -> None:
    from llm_os.client.evaluations import Evaluation

    assert str(Evaluation(loss=0.2389, count=3152, accuracy=0.9083)) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for verb in re.findall(r"`llm-os ([a-z]+)", page.read_text()):
        assert verb in VERBS, f"{page.name} names llm-os {verb}"
    for target in re.findall(r"`make ([a-z]+)`", page.read_text()):
        assert target in targets, f"{page.name} names make {target}"


def test_the_generated_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_error_reason_and_plugin_is_documented() -> None:
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    wanted = [f"LLM_OS_{name.upper()}" for name in Settings.model_fields]
    wanted += [f"`{code}`" for code in errors.by_code()] + [f"`{reason.value}`" for reason in Reason]
    wanted += [f"`{name}`" for family in plugins.FAMILIES for name in plugins.names(family)]
    assert [name for name in wanted if name not in text] == []


def test_there_are_at_most_thirty_settings() -> None:
    assert len(Settings.model_fields) <= 30


def test_every_verb_and_every_public_name_is_documented() -> None:
    commands = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    assert [verb for verb in VERBS if f"## {verb}\n" not in commands or f"`llm-os {verb}" not in commands] == []
    names = (ROOT / "docs" / "reference" / "python.md").read_text()
    wanted = [name for name in llm_os.__all__ if name not in {"__version__", "errors"}]
    assert [name for name in wanted if f"## {name}\n" not in names] == []
    assert "### Model.train" in names
