"""Reports as text: figures with intervals, classes, confusion, calibration, slices. Prints nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMES = {
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "r2": "R²",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "mrr": "Mean reciprocal rank",
    "word_f1": "F1 of words",
    "span_f1": "F1 of spans",
    "span_precision": "Precision of spans",
    "span_recall": "Recall of spans",
    "spearman": "Spearman",
    "pearson": "Pearson",
}
SHADES = " ░▒▓█"
MOST_CLASSES = 12
BAR = 24


def title(name: str) -> str:
    """How a figure is called where people read it."""
    return NAMES.get(name) or name.replace("_", " ").capitalize()


def inline(name: str) -> str:
    """Its title in the middle of a sentence."""
    text = title(name)
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def described(report: Mapping[str, Any]) -> str:
    """All parts of a report that it has figures for."""
    head = f"Evaluation of {report.get('version') or 'a model'} on {report.get('count'):,} rows"
    parts = [head, figures(report)]
    if report.get("per_class"):
        parts.append(classes(report))
    if report.get("confusion") and len(report["labels"]) <= MOST_CLASSES:
        parts.append(confusion(report["confusion"], report["labels"]))
    if report.get("calibration"):
        parts.append(reliability(report["calibration"]))
    parts += [sliced(column, table, report["shown"]) for column, table in report.get("slices", {}).items()]
    notes = report.get("notes") or {}
    if notes:
        parts.append("\n".join(f"{name}: {value}" for name, value in notes.items()))
    return "\n\n".join(parts)


def figures(report: Mapping[str, Any]) -> str:
    """Each figure with its interval."""
    rows = [
        (title(name), number(one["value"]), between(one["low"], one["high"])) for name, one in report["metrics"].items()
    ]
    return table(("", "", f"{report['confidence'] * 100:g} % interval"), rows) + f"\n({report['interval']})"


def classes(report: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = [
        (name, *(number(score[what]) for what in ("precision", "recall", "f1")), f"{int(score['support']):,}")
        for name, score in report["per_class"].items()
    ]
    macro = report.get("macro")
    if macro:
        rows.append(("macro", *(number(macro[what]) for what in ("precision", "recall", "f1")), ""))
    return table(("class", "precision", "recall", "F1", "rows"), rows)


def confusion(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Rows are true classes; the shade of a cell is its share of the row."""
    rows = []
    for label, row in zip(labels, counts, strict=True):
        whole = max(1, sum(row))
        rows.append((f"{label}", *(f"{n:,} {SHADES[round((len(SHADES) - 1) * n / whole)] * 2}" for n in row)))
    return table(("true \\ said", *labels), rows)


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """A bar of accuracy for each bin of confidence; `|` marks where the confidence lies."""
    rows = []
    for one in bins:
        filled, mark = round(BAR * one["accuracy"]), min(BAR - 1, round(BAR * one["confidence"]))
        bar = ["█" if place < filled else "·" for place in range(BAR)]
        bar[mark] = "|"
        rows.append((f"{one['confidence']:.2f}", f"{one['accuracy']:.2f}", "".join(bar), f"{one['count']:,}"))
    return table(("confidence", "accuracy", "", "rows"), rows)


def sliced(column: str, parts: Mapping[str, Mapping[str, Any]], shown: Sequence[str]) -> str:
    """The main figures of each slice with their intervals."""
    rows = []
    for value, part in parts.items():
        cells = [f"{number(part[name][0])} ({between(*part[name][1:])})" for name in shown if name in part]
        rows.append((value, *cells, f"{part['count']:,}"))
    return table((column, *(title(name) for name in shown), "rows"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns side by side, the first one to the left, the others to the right. Chinese signs count double."""
    lines = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(width(line[at]) for line in lines) for at in range(len(head))]
    text = []
    for line in lines:
        cells = [
            cell + " " * (widths[0] - width(cell)) if at == 0 else " " * (widths[at] - width(cell)) + cell
            for at, cell in enumerate(line)
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def width(text: str) -> int:
    """Columns that a terminal needs for it."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def number(value: float | None) -> str:
    """Four digits; large ones with two."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.2f}"


def chance(p: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def between(low: float | None, high: float | None) -> str:
    """`0.91 to 0.93`."""
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"
