"""A quality report as text for terminals: findings, then classes, lengths and languages as bars. Prints nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from llm_os.client.tables import table, width
from llm_os.spec.quality import CopyGroup, Quality, RowRef, Spread
from llm_os.spec.units import format_count

SIGNS = {"error": "✗", "warning": "!", "note": "·"}
BAR = 24
MOST = 15
"""Lines of a list."""
EIGHTHS = " ▏▎▍▌▋▊▉"
HEIGHTS = "▁▂▃▄▅▆▇█"


def written(report: Quality, columns: int = 100) -> str:
    """The whole report, in lines of at most `columns` (60 at least) where words allow it."""
    columns = max(60, min(columns, 120))
    parts = [
        head(report),
        "\n".join(findings(report, columns)),
        "\n".join(classes(report)),
        "\n".join(lengths(report)),
        "\n".join(languages(report)),
        "\n".join(groups("Leaks: texts in more than one split", report.copies.leaks, columns)),
        "\n".join(groups("Equal texts with different labels", report.copies.conflicts, columns)),
        "\n".join(groups("Duplicates", report.copies.groups, columns)),
        "\n".join(suspicious(report, columns)),
        "\n".join(personal(report)),
        foot(report),
    ]
    return "\n\n".join(part for part in parts if part)


def head(report: Quality) -> str:
    splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
    what = f"{report.rows:,} rows ({splits})"
    if report.split != "all":
        whole = report.splits.get(report.split)
        of = f"{report.rows:,} of {whole:,} rows" if report.rows != whole else f"{report.rows:,} rows"
        what = f"{of} of the split '{report.split}'"
    steps = f", prepared by {', '.join(report.steps)}" if report.steps else ""
    left = ", ".join(format_count(count, why) for why, count in report.left_out.items())
    return f"{report.name}: {what}, {report.kind}{steps}" + (f"\nLeft out when prepared: {left}" if left else "")


def findings(report: Quality, columns: int) -> Iterator[str]:
    if not report.findings:
        yield "Findings: nothing that a person should mend."
        return
    yield "Findings"
    for one in report.findings:
        yield from _wrapped(f"{SIGNS[one.severity]} ", one.sentence, columns)
        more = " ".join(part for part in (one.hint, _rows(one.rows)) if part)
        if more:
            yield from _wrapped("    ", more, columns)


def classes(report: Quality) -> Iterator[str]:
    """A bar for each class; with several splits a column for each."""
    if report.score is not None:
        yield f"Scores   {_histogram(report.score)}"
        yield f"         {_quantiles(report.score, '{:.2f}')}"
        return
    splits = list(report.classes)
    if not splits or not report.classes[splits[0]]:
        return
    names = sorted(report.classes[splits[0]], key=lambda name: -report.classes[splits[0]][name])
    rows = []
    for name in names[:MOST]:
        cells = []
        for split in splits:
            share = report.classes[split].get(name, 0) / max(1, sum(report.classes[split].values()))
            cells += [bar(share), f"{100 * share:.1f} %", f"{report.classes[split].get(name, 0):,}"]
        rows.append((f"  {name}", *cells))
    yield table(("Classes", *(cell for split in splits for cell in (split.ljust(BAR), "", "rows"))), rows)
    if len(names) > MOST:
        yield f"  ... and {len(names) - MOST} more"


def lengths(report: Quality) -> Iterator[str]:
    for number, (name, spread) in enumerate(report.lengths.items()):
        yield f"{'Length' if not number else '':<8} {name:<11} {_histogram(spread)}"
        yield f"{'':<8} {'':<11} {_quantiles(spread, '{:,.0f}')}"


def languages(report: Quality) -> Iterator[str]:
    found = report.languages
    if found is None:
        return
    rows = [
        (f"  {code}", bar(count / found.looked_at), f"{100 * count / found.looked_at:.1f} %", f"{count:,}")
        for code, count in list(found.counts.items())[:8]
    ]
    yield table(("Languages", "".ljust(BAR), "", "rows"), rows)
    rest = len(found.counts) - len(rows)
    if rest > 0:
        yield f"  ... and {rest} more"


def groups(title: str, found: Sequence[CopyGroup], columns: int) -> Iterator[str]:
    if not found:
        return
    yield title
    for group in found[:5]:
        labels = f" ({' / '.join(group.labels)})" if len(group.labels) > 1 else ""
        alike = "equal" if group.similarity == 1 else f"{100 * group.similarity:.0f} % alike"
        yield _cut(f"  {group.count} rows, {alike}{labels}: {_refs(group.rows)}  {group.excerpt}", columns)


def suspicious(report: Quality, columns: int) -> Iterator[str]:
    found = report.doubts
    if found is None or not found.rows:
        return
    unit = "R²" if report.kind == "score" else "agrees with"
    agreement = (
        f"{unit} {found.agreement:.2f}" if unit == "R²" else f"{unit} {100 * found.agreement:.1f} % of the labels"
    )
    yield f"Suspicious labels ({found.method}; it {'has ' if unit == 'R²' else ''}{agreement})"
    for doubt in found.rows[:10]:
        where = f"  {doubt.at.split}[{doubt.at.row}]"
        yield _cut(f"{where:<15} {doubt.label} → {doubt.likely}?  {doubt.excerpt}", columns)
    if found.count > 10:
        yield f"  ... and {found.count - 10:,} more, {len(found.rows):,} listed in `suspicious`"


def personal(report: Quality) -> Iterator[str]:
    if report.personal.samples:
        yield "Personal data"
        for sample in report.personal.samples[:8]:
            yield f"  {sample.at.split}[{sample.at.row}] {sample.column}: {sample.kind} {sample.masked}"


def foot(report: Quality) -> str:
    if not report.sampled:
        return ""
    looked = ", ".join(f"{check} {count:,}" for check, count in report.sampled.items())
    return f"Not all rows were looked at for: {looked} rows, evenly chosen."


def bar(share: float, length: int = BAR) -> str:
    """A bar of `length` signs at most, exact to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * length * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(length)


def _histogram(spread: Spread) -> str:
    """One sign a bin: its height is the number of rows, empty bins are blank."""
    most = max(spread.counts)
    signs = [HEIGHTS[min(7, 8 * count // (most + 1))] if count else " " for count in spread.counts]
    return f"{''.join(signs)}"


def _quantiles(spread: Spread, form: str) -> str:
    points = (("least", spread.min), ("half", spread.p50), ("95 %", spread.p95), ("most", spread.max))
    return ", ".join(f"{name} {form.format(value)}" for name, value in points)


def _rows(rows: Sequence[RowRef]) -> str:
    return f"See {_refs(rows[:5])}{' ...' if len(rows) > 5 else ''}" if rows else ""


def _refs(rows: Sequence[RowRef]) -> str:
    return ", ".join(f"{at.split}[{at.row}]" for at in rows)


def _wrapped(mark: str, text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, columns, initial_indent=f"  {mark}", subsequent_indent=" " * (2 + len(mark)))


def _cut(text: str, columns: int) -> str:
    """At most so many columns of a terminal; Chinese signs take two."""
    if width(text) <= columns:
        return text
    while width(text) > columns - 1:
        text = text[:-1]
    return text + "…"
