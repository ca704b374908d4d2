"""The pages on preparation run: code, commands, what they print, and the figures they quote."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins, session
from llm_os.tasks.datasets.sentic_data import read, select
from llm_os.tasks.preparation.vocabulary import Vocabulary

from .without_kernel import WithoutKernel

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "how-to" / "preparation"
PAGES = sorted(FOLDER.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"


def files(folder: Path) -> None:
    """The files that the pages name, of real rows."""
    english, chinese = (select(read(language), 2)[0] for language in ("en", "zh"))
    kept = [row for row in english if 60 < len(str(row["text"])) < 200 and "," not in str(row["text"])]
    plain = [row for row in kept if '"' not in str(row["text"]) and "&" not in str(row["text"])][::60][:60]
    lines = [f"{row['text']},{row['label']}" for row in plain]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *lines, *lines[:4]]) + "\n")
    cut = [row for row in chinese if 20 < len(str(row["text"])) < 120 and '"' not in str(row["text"])][::290][:30]
    pages = [{**row, "text": f"<p>{row['text']}<br/>&#39;</p>"} for row in plain[:30]]
    _lines(folder / "pages.jsonl", pages)
    (folder / "reviews_zh.csv").write_text(
        "\n".join(["text,label", *(f'"{r["text"]}",{r["label"]}' for r in cut)]) + "\n"
    )
    _lines(folder / "mixed.jsonl", [*plain[:30], *cut])
    positive = [row for row in kept if row["label"] == "positive"][::40][:30]
    _lines(folder / "skewed.jsonl", [*positive, *(row for row in kept if row["label"] == "negative")][:40:][:38])
    _lines(folder / "notes.jsonl", [{"text": row["text"]} for row in plain])
    chats = [
        {"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]}
        for row in plain
    ]
    _lines(folder / "chats.jsonl", chats)


def _lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, written once."""
    folder = tmp_path_factory.mktemp("files")
    files(folder)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WithoutKernel:
    """A folder with the files of the pages, and jobs that run on the spot."""
    for file in made.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    models = {}
    for name in ("transformer", "smollm2"):
        models[name] = tmp_path / name
        models[name].mkdir()
        Vocabulary(["[PAD]", "[UNK]", "film", "good"], lowercase=True).save(models[name])
        (models[name] / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    here = WithoutKernel(tmp_path / "jobs", models)
    monkeypatch.setattr(session, "connect", lambda: here)
    return here


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_prints_what_it_says(
    page: Path, place: WithoutKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall(page.read_text())
    names: dict[str, Any] = {}
    ran = 0
    for (language, code), (after, shown) in pairwise([*blocks, ("", "")]):
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
            ran += 1
            if after == "text":
                assert capsys.readouterr().out == shown
    assert ran
    assert place.jobs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, place: WithoutKernel) -> None:
    from llm_os.cli.main import Verbs

    commands = [
        line for language, code in BLOCK.findall(page.read_text()) if language == "bash" for line in code.splitlines()
    ]
    assert commands
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "llm-os"
        before = len(place.jobs)
        assert Verbs("llm-os").main(words, standalone_mode=False) == 0
        assert [step["step"] for step in place.jobs[before].options["steps"]] == re.findall(r"--step (\w+)", line)


def test_every_step_has_a_page_and_the_index_links_to_it() -> None:
    index = (FOLDER / "index.md").read_text()
    for name in plugins.names("step"):
        assert f"[{name}]({name}.md)" in index
        assert (FOLDER / f"{name}.md").read_text().startswith(f"# {name}: ")


def test_options_in_the_pages_exist() -> None:
    for page in PAGES:
        if page.stem in plugins.names("step"):
            known = plugins.load("step", page.stem).Options.model_fields
            for option in re.findall(r"`([a-z_]+)=", page.read_text()):
                assert option in known or option == "steps", f"{page.name}: {option}"


def test_figures_stand_in_the_benchmark_as_they_were_seen() -> None:
    seen = (ROOT / "benchmarks" / "preparation" / "README.md").read_text()
    for page in PAGES:
        for row in re.findall(r"^\|.*\d\.\d.*\|$", page.read_text(), re.MULTILINE):
            assert row in seen, f"{page.name}: {row}"
