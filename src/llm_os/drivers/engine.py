"""The interface of an engine: can it run here, how much memory does it need, which process serves it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from llm_os.drivers.device import Probe
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec


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
    """Among engines that can serve a model the highest is taken when the user names none."""

    @abstractmethod
    def probe(self) -> Probe:
        """Is the engine's package there (importlib.metadata, no import)? Quick, repeatable."""

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        """Room for adapters in a replica of this task. None: it holds none beside its model. Pure."""
        return None

    @abstractmethod
    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        """What one replica needs. Pure."""

    @abstractmethod
    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        """The program to start; the kernel adds a ServeCall to its attempt folder."""
