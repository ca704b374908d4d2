"""The interface of a task: options, what it needs, and run(context, options). Knows no kernel and no launcher.

A plugin file holds one subclass and ends with `PLUGIN = TheClass()`. Heavy imports (torch, transformers, pyarrow)
live inside `run`, because the kernel imports the file to validate options and to size the job.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.jobs import Choice
from llm_os.spec.resources import Capacity, ResourceSpec

if TYPE_CHECKING:
    from llm_os.tasks.context import Context

OptionsT = TypeVar("OptionsT", bound=Spec)


class Task(ABC, Generic[OptionsT]):
    """Finite work from input folders to an output folder.

    Class attributes:
        Options: pydantic model of the options; its field docstrings become help texts.
        inputs: roles of the inputs that must be given, such as `("model", "data")`.
        optional_inputs: roles that may be given.
        output: kind of the artifact it makes (`model`, `dataset`, `report`), or None.
        cacheable: same task, options and inputs give the same output; an earlier result may be reused.
        preload: modules whose loading takes seconds; a process may be kept ready that has loaded them.
    """

    Options: ClassVar[type[Spec]]
    inputs: ClassVar[tuple[str, ...]] = ()
    optional_inputs: ClassVar[tuple[str, ...]] = ()
    output: ClassVar[str | None] = None
    cacheable: ClassVar[bool] = False
    preload: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def resources(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        """What one worker needs on a machine like `granted`. Pure, quick, no I/O.

        Raises:
            InvalidOptionError, ModelError, DataError: options and inputs do not fit each other.
        """

    @abstractmethod
    def run(self, context: Context, options: OptionsT) -> None:
        """Do the work. Runs in a process of its own; may block; may be killed at any moment and be run again.

        Fills `context.output` (with an `artifact.json`, see `Context.finish`). Raises an `LLMOSError` for a
        user's mistake or a failure; anything else is reported as an internal error with its traceback in the log.
        """

    def choose(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> Choice | None:
        """What shall run instead, definite where these options say `auto`; None: this, as it is.

        Asked once, at submission; what is chosen is not asked again. Pure, quick, no I/O.

        Raises:
            InvalidOptionError, ModelError, DataError: options and inputs do not fit each other.
        """
        return None

    def alternatives(
        self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity, free_memory: int
    ) -> str:
        """A phrase that says what would fit into `free_memory` ("batch_size 8 would fit"); empty: nothing known."""
        return ""
