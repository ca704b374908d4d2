"""What a person should know of a report, one sentence each, worst first. Knows figures, no rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from llm_os.spec.quality import Finding, Quality, RowRef

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
UNEVEN = 10.0
"""Ratio of the largest to the smallest class from which it is a warning."""
FEW = 10
"""Rows of a class below which nothing reliable is learnt or measured of it."""
DRIFT = 0.05
"""Difference of a class's share between splits from which it is a warning."""
TRUSTED = 0.7
"""Share of the labels that a model must agree with, so that its doubts are a warning and not a note."""
MANY = 0.01
"""Share of the rows from which a fault is a warning and not a note."""


def findings(report: Quality) -> tuple[Finding, ...]:
    found = [
        *_leaks(report),
        *_classes(report),
        *_labels(report),
        *_copies(report),
        *_texts(report),
        *_personal(report),
        *_columns(report),
    ]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def _weight(rows: int, report: Quality) -> Severity:
    return "warning" if rows > MANY * report.rows else "note"


def _leaks(report: Quality) -> Iterator[Finding]:
    copies = report.copies
    if copies.leaking:
        which = "training rows" if report.split == "all" else f"rows of '{report.split}'"
        yield Finding(
            severity="error",
            check="leaks",
            sentence=f"Leaks: {copies.leaking:,} of the {which} have an equal or nearly equal text in another split, "
            "so an evaluation would look too good.",
            hint="load_data(..., leaks='drop') takes them out of the training rows.",
            rows=tuple(at for group in copies.leaks for at in group.rows),
        )


def _classes(report: Quality) -> Iterator[Finding]:
    for split, counts in report.classes.items():
        missing = [name for name, count in counts.items() if not count]
        present = {name: count for name, count in counts.items() if count}
        if missing:
            named = ", ".join(f"'{name}'" for name in missing[:5])
            yield Finding(severity="warning", check="classes", sentence=f"'{split}' has no row of {named}.")
        if len(present) == 1:
            yield Finding(
                severity="warning",
                check="classes",
                sentence=f"All rows of '{split}' have the class '{next(iter(present))}'.",
            )
        rare = [name for name, count in present.items() if count < FEW]
        if rare and report.rows >= FEW * len(counts):
            named = ", ".join(f"'{name}' ({present[name]})" for name in rare[:5])
            yield Finding(
                severity="warning",
                check="classes",
                sentence=f"Classes of '{split}' with fewer than {FEW} rows: {named}.",
                hint="Add rows, or join classes; figures of so few rows say little.",
            )
        if len(present) > 1 and max(present.values()) > UNEVEN * min(present.values()):
            most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
            yield Finding(
                severity="warning",
                check="classes",
                sentence=f"Classes of '{split}' are uneven: '{most}' has {present[most] / present[least]:.0f} times "
                f"the rows of '{least}'.",
                hint="Judge by macro F1, not by accuracy; class weights or balancing may help.",
            )
    yield from _drift(report)


def _drift(report: Quality) -> Iterator[Finding]:
    if len(report.classes) < 2:
        return
    (one, first), (other, second) = list(report.classes.items())[:2]
    for name in first:
        shares = [counts.get(name, 0) / max(1, sum(counts.values())) for counts in (first, second)]
        if abs(shares[0] - shares[1]) > DRIFT:
            yield Finding(
                severity="warning",
                check="classes",
                sentence=f"'{name}' is {100 * shares[0]:.1f} % of '{one}' and {100 * shares[1]:.1f} % of '{other}'.",
                hint="split='stratified' keeps classes in proportion.",
            )
            return


def _labels(report: Quality) -> Iterator[Finding]:
    copies, doubts = report.copies, report.doubts
    if copies.conflicting:
        yield Finding(
            severity="warning",
            check="labels",
            sentence=f"Equal texts with different labels: {_rows(copies.conflicting)}.",
            hint="Decide for one label, or leave these texts out.",
            rows=tuple(at for group in copies.conflicts for at in group.rows),
        )
    if doubts is not None and doubts.count:
        share = doubts.count / doubts.looked_at
        yield Finding(
            severity="warning" if share > MANY and _trusted(report) else "note",
            check="labels",
            sentence=f"Doubtful labels: {doubts.count:,} ({100 * share:.1f} %), where a model that was trained on the "
            f"other rows is sure of another one{_trust(report)}.",
            hint="Read the first ones (`suspicious`): the most doubtful stand first.",
            rows=tuple(doubt.at for doubt in doubts.rows[:20]),
        )


def _copies(report: Quality) -> Iterator[Finding]:
    copies = report.copies
    if copies.alike:
        yield Finding(
            severity="note",
            check="duplicates",
            sentence=f"{copies.alike:,} texts are alike, as from a template: only equal ones count as duplicates.",
        )
    for count, how in ((copies.equal, "Equal"), (copies.near, "Nearly equal")):
        if count:
            yield Finding(
                severity=_weight(count, report),
                check="duplicates",
                sentence=f"{how} to an earlier row: {_rows(count)} ({100 * count / report.rows:.1f} %).",
                hint='steps=["deduplicate"] keeps one of each.',
                rows=tuple(group.rows[-1] for group in copies.groups),
            )


def _texts(report: Quality) -> Iterator[Finding]:
    for fault in report.faults:
        yield Finding(
            severity=_weight(fault.rows, report),
            check="texts",
            sentence=f"{fault.name}: {_rows(fault.rows)}.",
            hint="" if "clean" in fault.hint and "clean" in report.steps else fault.hint,
            rows=fault.examples,
        )
    if report.too_long:
        yield Finding(
            severity=_weight(report.too_long, report),
            check="lengths",
            sentence=f"More than the {report.context_length} tokens that {report.model} reads: "
            f"{_rows(report.too_long)}; the rest of a text is cut off.",
            hint="Divide long texts, or take a model with a longer context.",
        )
    languages = report.languages
    if languages is not None:
        known = {code: count for code, count in languages.counts.items() if code != "unknown"}
        main = next(iter(known), None)
        others = sum(known.values()) - known.get(main or "", 0)
        if main and report.language not in ("unknown", main):
            yield Finding(
                severity="warning",
                check="languages",
                sentence=f"The data is called '{report.language}', but most texts are '{main}'.",
                hint=f"load_data(..., language='{main}').",
            )
        if others:
            named = ", ".join(f"{code} {count:,}" for code, count in list(known.items())[1:5])
            yield Finding(
                severity="warning" if others > MANY * languages.looked_at else "note",
                check="languages",
                sentence=f"Another language than '{main}': {_rows(others)} ({named}).",
                rows=languages.others,
            )


def _personal(report: Quality) -> Iterator[Finding]:
    personal = report.personal
    if personal.rows:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in personal.counts.items())
        yield Finding(
            severity="warning",
            check="personal",
            sentence=f"Personal data: {_rows(personal.rows)} ({counts}).",
            hint="load_data(..., redact=True) puts placeholders there. Names and addresses are not found.",
            rows=_places(report),
        )


def _places(report: Quality) -> tuple[RowRef, ...]:
    return tuple(dict.fromkeys(sample.at for sample in report.personal.samples))


def _columns(report: Quality) -> Iterator[Finding]:
    empty = [*report.empty_columns, *(column.name for column in report.columns if not column.filled)]
    if empty:
        yield Finding(
            severity="note",
            check="columns",
            sentence=f"Columns without a value: {_listed(empty)}.",
        )
    constant = [c for c in report.columns if c.constant is not None and c.filled == report.rows and report.rows > 1]
    for column in constant:
        if column.name not in ("label", "labels", "tags"):
            yield Finding(
                severity="note",
                check="columns",
                sentence=f"Column '{column.name}' is '{column.constant}' in all rows.",
                hint="It tells nothing.",
            )


def _trust(report: Quality) -> str:
    if report.doubts is None or report.kind == "score":
        return ""
    little = "" if _trusted(report) else ", which is little to go by"
    return f" (it agrees with {100 * report.doubts.agreement:.0f} % of all{little})"


def _trusted(report: Quality) -> bool:
    """Whether the model that doubts labels is right often enough to be a warning. A score's share is R², mostly low."""
    return report.doubts is not None and (report.kind == "score" or report.doubts.agreement >= TRUSTED)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:10])
