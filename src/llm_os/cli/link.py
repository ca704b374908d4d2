"""How commands reach the kernel: a transport without a session for looking, the script's connection for work."""

from __future__ import annotations

from llm_os.client.start import answers
from llm_os.client.transport import Transport
from llm_os.errors import KernelUnavailableError
from llm_os.settings import Settings


def looking() -> Transport:
    """For commands that only look or end something: they never start a kernel.

    Raises:
        KernelUnavailableError: none runs in this home.
    """
    settings = Settings()

    def nobody() -> None:
        raise KernelUnavailableError(
            f"No kernel runs in {settings.home}.", hint="Start it with `llm-os up`, or run a script that uses it."
        )

    if not answers(settings.socket):
        nobody()
    return Transport(settings.socket, nobody)
