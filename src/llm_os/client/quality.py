"""The quality report of data as a person gets it: facts, findings, doubtful labels, pictures. Computes nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os.client.connection import Connection
from llm_os.client.exports import copied_out
from llm_os.client.jobs import run
from llm_os.client.quality_text import written
from llm_os.spec.base import Json
from llm_os.spec.jobs import JobSpec
from llm_os.spec.quality import CopyGroup, Doubt, Finding, Personal, Quality


class Description(dict[str, Any]):
    """A dictionary that prints as people read it."""

    def __str__(self) -> str:
        width = max((len(name) for name in self), default=0)
        return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in self.items() if value is not None)

    __repr__ = __str__


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


class QualityReport(Description):
    """What `data.describe()` gives back. As a dictionary it has the plain facts (`rows`, `classes`, `words` ...).

    Rows are named as `data[row]` has them. Texts are shown as excerpts in which personal data is masked.

    Attributes:
        quality: the whole report, typed.
        artifact: content address of its files.
    """

    def __init__(self, facts: Mapping[str, Any], quality: Quality, artifact: str, connection: Connection) -> None:
        super().__init__(facts)
        self.quality = quality
        self.artifact = artifact
        self._connection = connection
        self._pictures: dict[str, bytes] | None = None

    @property
    def findings(self) -> Sequence[Finding]:
        """What a person should know, worst first: `severity`, `check`, `sentence`, `hint`, `rows`."""
        return self.quality.findings

    @property
    def suspicious(self) -> Sequence[Doubt]:
        """Labels that are probably wrong, most doubtful first: `at`, `label`, `likely`, `margin`, `excerpt`."""
        return self.quality.doubts.rows if self.quality.doubts is not None else ()

    @property
    def duplicates(self) -> Sequence[CopyGroup]:
        """Groups of equal or nearly equal texts, largest first."""
        return self.quality.copies.groups

    @property
    def leaks(self) -> Sequence[CopyGroup]:
        """Groups of equal or nearly equal texts that are in more than one split."""
        return self.quality.copies.leaks

    @property
    def personal(self) -> Personal:
        """Counts of personal data by kind, and where some of it stands."""
        return self.quality.personal

    @property
    def pictures(self) -> Mapping[str, bytes]:
        """PNG files by name: `report` (all on one page), `classes`, `lengths`, `languages`."""
        if self._pictures is None:
            with tempfile.TemporaryDirectory(prefix="llm-os-report-") as beside:
                folder = self.save(Path(beside) / "report")
                self._pictures = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
        return self._pictures

    def save_pictures(self, folder: str | Path) -> list[Path]:
        """Write the pictures into a folder, over those of an earlier report; answers their paths."""
        target = Path(folder).expanduser().absolute()
        target.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, content in self.pictures.items():
            paths.append(target / f"{name}.png")
            paths[-1].write_bytes(content)
        return paths

    def save(self, folder: str | Path) -> Path:
        """Copy `report.json` and the pictures into a new folder. Raises ConflictError if it holds anything."""
        return copied_out(self._connection, self.artifact, folder)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        return self.quality.model_dump(mode="json")

    def __str__(self) -> str:
        return written(self.quality, shutil.get_terminal_size((100, 40)).columns)

    __repr__ = __str__

    def _repr_png_(self) -> bytes | None:
        """Notebooks show the page."""
        return self.pictures.get("report")


def described(
    connection: Connection, digest: str, options: Mapping[str, Json], model: str | None, facts: Mapping[str, Any]
) -> QualityReport:
    """Run the report's job (at once the second time) and give what it found.

    Args:
        options: of the task `datasets/report`. model: whose tokens are counted. facts: known without a job.
    """
    given, inputs = dict(options), {"data": digest}
    if model is not None:
        inputs["model"] = model
        given["model_name"] = model
    title = f"Describing {facts.get('name') or 'data'}"
    job = run(connection, JobSpec(task="datasets/report", options=given, inputs=inputs), title)
    quality = Quality.model_validate(job.result["quality"])
    found = {**facts, "rows": quality.rows, **_facts(quality)}
    return QualityReport(found, quality, str(job.result["artifact"]), connection)


def _facts(quality: Quality) -> dict[str, Any]:
    """The plain facts under the names that a description without a report has."""
    names = ("min", "p25", "p50", "p75", "p95", "max")
    classes: dict[str, int] = {}
    for counts in quality.classes.values():
        for name, count in counts.items():
            classes[name] = classes.get(name, 0) + count
    spreads = {**quality.lengths, **({"score": quality.score} if quality.score else {})}
    return {
        "classes": classes,
        **{name: {point: getattr(spread, point) for point in names} for name, spread in spreads.items()},
        "duplicates": quality.copies.equal,
    }
