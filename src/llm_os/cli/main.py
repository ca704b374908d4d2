"""The command `llm-os`: a tree of verbs, each loaded only when it is called. Knows names and one-line helps."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

VERBS: dict[str, tuple[str, str]] = {
    "up": ("kernel", "Start the kernel of this home, to stay."),
    "down": ("kernel", "End the kernel and everything it runs."),
    "status": ("kernel", "What runs where: kernel, gateway, counts."),
    "doctor": ("doctor", "Check this machine, and what is wrong with what runs here."),
    "alerts": ("alerts", "Show alert rules and what each is now."),
    "ps": ("work", "List jobs and deployments that live."),
    "jobs": ("work", "List jobs, ended ones too."),
    "logs": ("work", "Show the log of a job or deployment."),
    "events": ("work", "Show what happened, or follow it."),
    "why": ("work", "Say why something waits, runs, is slow or failed."),
    "cancel": ("work", "End a job."),
    "models": ("models", "List model versions."),
    "samples": ("models", "List or fetch the models of the catalogue."),
    "data": ("data", "Prepare data, and show how good it is."),
    "train": ("data", "Tune a model on data."),
    "merge": ("models", "Put an adapter into the weights of its base."),
    "gguf": ("models", "Write a tuned chat model as GGUF, for openvino and llama.cpp."),
    "evaluate": ("evaluate", "Judge a model on data, or compare two."),
    "predict": ("serve", "Classify texts."),
    "run": ("serve", "Chat with a model, or ask it once."),
    "deploy": ("serve", "Serve a model, to stay."),
    "calibrate": ("calibrate", "Measure the engines that could serve a model here."),
    "chat": ("chat", "Chat with a deployment."),
    "update": ("rollouts", "Serve another version under the same name, without a failed request."),
    "adapters": ("adapters", "Serve adapters beside the model of a deployment, without a restart."),
    "promote": ("rollouts", "Let a version that is being tried take over."),
    "rollback": ("rollouts", "Take an update back, or go to the version before."),
    "verify": ("verify", "Compare a deployment with PyTorch again, or read a version again."),
    "scale": ("rollouts", "Change how many replicas a deployment has."),
    "stop": ("serve", "End a deployment."),
    "service": ("service", "Keep the kernel up, by systemd."),
    "keys": ("keys", "Make, list and revoke keys; see what was served."),
}


class Verbs(click.Group):
    """Imports a verb's module at its first use: `llm-os --help` loads none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"llm_os.cli.commands.{VERBS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS:
            from llm_os.errors import did_you_mean

            ctx.fail(f"There is no command '{args[0]}'. {did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llm-os", message="%(version)s")
def cli() -> None:
    """LLM OS: the whole life of language models on the machines you have.

    Begin with `llm-os run smollm2 "What is the opposite of hot?"`.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Errors become one clear block and an exit code; LLM_OS_DEBUG=1 shows tracebacks."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code: Any = cli.main(arguments, prog_name="llm-os", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return _interrupted(ends=argv is None)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted(ends=argv is None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the one border where every error meets a person; foreign ones go on
        return _failed(error, arguments)


def _interrupted(*, ends: bool) -> int:
    """Say so. `ends`: the process does, where a second Ctrl-C would show a traceback of the interpreter's end."""
    if ends:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("Interrupted.", file=sys.stderr)
    return 130


def _failed(error: Exception, arguments: list[str]) -> int:
    from pydantic import ValidationError

    from llm_os.errors import InvalidOptionError, LLMOSError

    if isinstance(error, ValidationError) and error.title == "Settings":
        # Without the values: an address may hold a password.
        said = "; ".join(f"LLM_OS_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors() if one["loc"])
        error = InvalidOptionError(f"A setting is not valid. {said}.", hint="Mend or unset the variable.")
    if os.environ.get("LLM_OS_DEBUG") == "1" or not isinstance(error, LLMOSError):
        raise error
    from llm_os.cli.render import show_error

    show_error(error, as_json="--json" in arguments)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
