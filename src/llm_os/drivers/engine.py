"""The interface of an engine: can it run here, how much memory does it need, which process serves it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from llm_os.drivers.device import Available, Probe
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec

TRUSTS_NOBODY: Final = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
"""Environment of workers that speak with nobody outside this machine, and load no library that does.

aiohttp reads the certificates of all authorities when it is loaded: a quarter of a worker's start. Others, such as
httpx, refuse to make a client without any, so this is nothing for workers that load transformers.
"""


@dataclass(frozen=True, slots=True)
class AdapterRoom:
    """Adapters that one replica holds beside its model, loaded and unloaded while it serves.

    Attributes:
        count: how many at most, and rank: of each.
        options: names of the engine's options that say so, for messages.
    """

    count: int
    rank: int
    options: tuple[str, str] = ("max_adapters", "max_adapter_rank")


class Engine(ABC):
    """Serves a model version in a process of its own. Pure but for `probe`; never imports the engine's library.

    Class attributes:
        name: its plugin name.
        formats: model formats it opens, best first.
        tasks: tasks it serves (`text-generation`, `text-classification`).
        Options: pydantic model of its options.
        gaps: abilities of the conformance suite it lacks, by name, with the reason.
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    tasks: ClassVar[tuple[str, ...]]
    Options: ClassVar[type[Spec]]
    gaps: ClassVar[Mapping[str, str]] = {}
    shares_prefixes: ClassVar[bool] = False
    """Prompts that begin alike are read once if one comes after the other, and again if they come together.

    Not of engines that coalesce by themselves (vLLM), or whose requests have caches of their own (llama.cpp).
    """
    compared: ClassVar[bool] = True
    """Whether it is compared with the reference before it serves; not where it is the reference itself."""
    preference: ClassVar[int] = 0
    """Among engines that can serve a model the highest is taken when the user names none, and none was measured.

    Below 0: never taken, and never measured, unless it is named.
    """

    @abstractmethod
    def probe(self) -> Probe:
        """Is the engine's package there (importlib.metadata, no import)? Quick, repeatable."""

    def identity(self, options: Spec) -> str:
        """Of the code that will run with these options: what it says of a model is another's where this is another.

        Quick when nothing has changed; like `probe` it may look at files. Not abstract: the version alone will do
        where the code is a package of this environment.
        """
        found = self.probe()
        return found.version if isinstance(found, Available) else ""

    def refuses(self, model: ArtifactFacts) -> str | None:
        """Why it cannot open this model though it serves its format and task; None: nothing is known against it. Pure.

        It is asked before anything starts: an engine that is not named is not taken, one that is named is refused.
        """
        return None

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        """Room for adapters in a replica of this task. None: it holds none beside its model. Pure."""
        return None

    @abstractmethod
    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        """What one replica needs. Pure."""

    @abstractmethod
    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        """The program to start; the kernel adds a ServeCall to its attempt folder."""

    def candidates(self, model: ArtifactFacts, granted: Capacity, precision: str | None = None) -> tuple[Spec, ...]:
        """Options that are worth measuring for this model on a machine like `granted`. Pure; may be called often.

        Which of them is best nobody knows before: they are started and timed side by side. Few: each costs seconds.
        An engine whose `preference` is below 0 is asked only where it was named.

        Args:
            model: of a format and task that this engine opens.
            precision: of the weights while they are served (`int8`, `bf16` ...); None: any.

        Returns:
            Those that serve in this precision; none where it cannot.
        """
        return (self.Options(),) if precision in (None, model.meta.get("precision")) else ()

    def first_that_fits(self, ladder: Iterable[Spec], model: ArtifactFacts, room: int) -> Spec | None:
        """The first of these options with which a replica needs at most `room` bytes of memory. Pure."""
        room_of = Capacity(cpus=1.0, memory=room)
        return next((one for one in ladder if self.footprint(one, model, room_of).memory <= room), None)
