"""The command tree: every verb has help with an example, wrong ones are answered with what there is."""

from __future__ import annotations

import importlib.metadata

import pytest
from click.testing import CliRunner

from llm_os.cli.commands import doctor
from llm_os.cli.main import VERBS, cli, main
from llm_os.cli.options import labels_of
from llm_os.cli.render import print_table
from llm_os.errors import InvalidOptionError

PROMISED = (
    "up down status doctor ps logs events why jobs cancel models samples data train merge evaluate predict run deploy "
    "stop update promote rollback scale adapters verify keys chat service alerts calibrate gguf"
)


def test_every_promised_verb_is_there() -> None:
    assert set(VERBS) == set(PROMISED.split())


@pytest.mark.parametrize("verb", PROMISED.split())
def test_help_shows_an_example_and_json(verb: str) -> None:
    done = CliRunner().invoke(cli, [verb, "--help"])
    assert done.exit_code == 0
    assert "Example: llm-os " + verb in done.output
    assert "--json" in done.output


def test_a_wrong_verb_is_answered_with_the_right_one() -> None:
    done = CliRunner().invoke(cli, ["trian"])
    assert done.exit_code == 2
    assert "Did you mean 'train'?" in done.output


@pytest.mark.parametrize("command", ["prepare", "show"])
def test_both_commands_of_data_have_help_with_an_example_and_json(command: str) -> None:
    done = CliRunner().invoke(cli, ["data", command, "--help"])
    assert done.exit_code == 0
    assert f"Example: llm-os data {command} " in done.output
    assert "--json" in done.output
    assert "--redact" in done.output


def test_data_with_a_source_only_prepares_it() -> None:
    done = CliRunner().invoke(cli, ["data", "reviews.csv", "--no-such-option"])
    assert done.exit_code == 2
    assert "data prepare" in done.output


@pytest.mark.parametrize(
    ("wanted", "said"), [("tensorbord:runs", "Did you mean 'tensorboard'?"), ("csv", "names no folder")]
)
def test_a_wrong_export_is_refused_before_the_training(wanted: str, said: str) -> None:
    done = CliRunner().invoke(cli, ["train", "nothing", "nothing", "--export", wanted])
    assert isinstance(done.exception, InvalidOptionError)
    assert said in f"{done.exception.message} {done.exception.hint}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--option", "epochs=1"], "'epochs' cannot be given as --option. Write --epochs 1."),
        (["train", "--option", "name=mood"], "'name' cannot be given as --option. Write --name mood."),
        (["train", "--option", "background=true"], "'background' cannot be given as --option. Leave it out."),
        (["train", "--option", "ngrams"], "--option ngrams has no value. Write --option NAME=VALUE."),
        (["evaluate", "--option", "method=perplexity"], "Write --method perplexity."),
    ],
)
def test_what_has_a_flag_of_its_own_is_no_further_option(words: list[str], said: str) -> None:
    """Before a model is fetched or data prepared, and not as a traceback."""
    verb, *more = words
    done = CliRunner().invoke(cli, [verb, "nothing", "nothing", *more])
    assert isinstance(done.exception, InvalidOptionError)
    assert said in str(done.exception)


def test_a_setting_that_cannot_be_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_OS_TRACES", "http://name:password@host")
    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert "LLM_OS_TRACES: " in said
    assert "password" not in said


def test_doctor_says_what_traces_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    assert doctor._traces(None) == []
    monkeypatch.setattr(importlib.metadata, "version", missing)
    (check,) = doctor._traces("http://127.0.0.1:4318")
    assert (check["good"], check["must"]) == (False, False)
    assert "llm-os[traces]" in check["cure"]


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`pip install 'llm-os[llamacpp]'` is no markup: without its brackets it would install something else."""
    print_table(("CURE",), [("pip install 'llm-os[llamacpp]'",)], "none")
    assert "pip install 'llm-os[llamacpp]'" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "said"), [("team", "--label team has no value"), ("=x", "--label =x has no name")])
def test_a_wrong_label_is_named_by_its_own_flag(text: str, said: str) -> None:
    with pytest.raises(InvalidOptionError, match=said):
        labels_of([text])
    assert labels_of(["team=7"]) == {"team": "7"}
