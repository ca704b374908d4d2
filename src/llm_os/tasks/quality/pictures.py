"""The report as pictures (PNG): classes, lengths, languages, and all on one page. Knows figures, no rows."""

from __future__ import annotations

import textwrap
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm_os.spec.quality import Quality, Spread
from llm_os.tasks.evaluation.pictures import fonts, shown, shown_lines

INK, GREY, FAINT = "#1a202c", "#718096", "#e2e8f0"
COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a")
"""One for each split; blue for what has none."""
SIGNS = {"error": ("#c53030", "✗"), "warning": ("#dd6b20", "!"), "note": ("#718096", "·")}
RED = "#c53030"
MOST_BARS = 12
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 14,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": INK,
    "axes.labelcolor": GREY,
}


def draw(report: Quality, folder: Path) -> list[str]:
    """Write `report.png` and one picture for each part; answers what a person should know (none are drawn, ...)."""
    if find_spec("matplotlib") is None:
        return ["No pictures were drawn: matplotlib is not installed (pip install matplotlib)."]
    from matplotlib import rc_context

    with rc_context({**STYLE, "font.family": fonts()}):
        for name, (width, height), part in (
            ("classes", (6.0, 3.0), classes),
            ("lengths", (6.0, 3.0), lengths),
            ("languages", (6.0, 2.4), languages),
        ):
            figure = _figure(width, height)
            if part(figure.subplots(), report):
                _save(figure, folder / f"{name}.png")
        _save(page(report), folder / "report.png")
    return []


def page(report: Quality) -> Any:
    """Everything at a glance: head, classes, lengths, languages, copies, and the findings in words."""
    lines = _findings(report)
    height = 4.6 + 0.2 * len(lines)
    figure = _figure(8.5, height)
    grid = figure.add_gridspec(3, 2, height_ratios=[0.55, 3.6, 0.3 + 0.2 * len(lines)], width_ratios=[1, 1])
    head = figure.add_subplot(grid[0, :])
    head.axis("off")
    head.text(0, 0.95, shown_lines([report.name])[0], fontsize=15, weight="bold", va="top")
    head.text(0, 0.05, _subtitle(report), fontsize=9, color=GREY, va="bottom")
    middle = grid[1, :].subgridspec(1, 3, width_ratios=[1, 1.25, 0.8], wspace=0.08)
    for place, part in enumerate((classes, lengths, languages)):
        axes = figure.add_subplot(middle[place])
        if not part(axes, report):
            axes.axis("off")
    foot = figure.add_subplot(grid[2, :])
    foot.axis("off")
    foot.set(xlim=(0, 1), ylim=(len(lines) + 0.5, -1))
    foot.text(0, -0.6, "Findings", fontsize=10, weight="bold", va="center")
    for place, (severity, text) in enumerate(lines):
        if severity:
            colour, sign = SIGNS[severity]
            foot.text(0.005, place + 0.5, sign, color=colour, weight="bold", va="center", ha="center", fontsize=11)
        foot.text(0.022, place + 0.5, text, va="center", fontsize=8.5)
    return figure


def classes(axes: Any, report: Quality) -> bool:
    """Share of each class, a bar for each split; the histogram of the scores where there are no classes."""
    if report.score is not None:
        _histogram(axes, report.score)
        axes.set_title("Scores")
        return True
    if not report.classes:
        return False
    names = list(next(iter(report.classes.values())))
    size: Mapping[str, int] = {name: sum(counts.get(name, 0) for counts in report.classes.values()) for name in names}
    names = sorted(names, key=lambda name: -size[name])[:MOST_BARS]
    axes.set_title("Classes" + (f" ({len(names)} of {len(size)})" if len(size) > len(names) else ""))
    thick = 0.8 / len(report.classes)
    for place, (split, counts) in enumerate(report.classes.items()):
        whole = max(1, sum(counts.values()))
        shares = [100 * counts.get(name, 0) / whole for name in names]
        at = [number - 0.4 + thick * (place + 0.5) for number in range(len(names))]
        axes.barh(at, shares, 0.92 * thick, color=COLOURS[place % len(COLOURS)], label=split)
        for y, share, name in zip(at, shares, names, strict=True):
            axes.text(share, y, f" {counts.get(name, 0):,}", va="center", fontsize=7.5, color=GREY)
    axes.set_yticks(range(len(names)), shown(names))
    axes.set_ylim(max(2.6, len(names) - 0.4), -0.6)
    axes.margins(x=0.22)
    axes.set_xlabel("% of the rows")
    if len(report.classes) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower right", ncols=len(report.classes))
    return True


def lengths(axes: Any, report: Quality) -> bool:
    """Histogram of tokens where a model was named, else of words; a line where the model stops to read."""
    if not report.lengths:
        return False
    name = "tokens" if "tokens" in report.lengths else "words"
    found = report.lengths[name]
    _histogram(axes, found)
    marks = [(found.p50, GREY, f"half: {found.p50:,.0f}")]
    if name == "tokens" and report.context_length and report.context_length <= found.max:
        marks.append((float(report.context_length), RED, f"the model reads {report.context_length:,}"))
    for value, colour, text in marks:
        axes.axvline(_place(found, value), color=colour, linewidth=1.0, linestyle="--")
        axes.text(_place(found, value), 1.0, f" {text}", transform=axes.get_xaxis_transform(), fontsize=8, color=colour)
    axes.set_title("Length")
    axes.set_xlabel(f"{name} in a text")
    return True


def languages(axes: Any, report: Quality) -> bool:
    """Share of each language, of at most eight."""
    if report.languages is None:
        return False
    found = list(report.languages.counts.items())
    kept = found[:7]
    rest = sum(count for _, count in found[7:])
    kept += [("others", rest)] if rest else []
    shares = [100 * count / report.languages.looked_at for _, count in kept]
    axes.barh(range(len(kept)), shares, 0.7, color=[FAINT if code == "unknown" else COLOURS[0] for code, _ in kept])
    for y, (share, (_, count)) in enumerate(zip(shares, kept, strict=True)):
        axes.text(share, y, f" {count:,}", va="center", fontsize=7.5, color=GREY)
    axes.set_yticks(range(len(kept)), [code for code, _ in kept])
    axes.set_ylim(max(2.6, len(kept) - 0.4), -0.6)
    axes.set_xlim(0, 145)
    axes.set_xticks([0, 50, 100])
    axes.set_title("Languages")
    axes.set_xlabel("% of the rows")
    return True


def _histogram(axes: Any, found: Spread) -> None:
    """Bars of one width whatever their bins are; the axis says where the bins begin."""
    bins = range(len(found.counts))
    axes.bar(bins, found.counts, 0.94, align="edge", color=COLOURS[0])
    whole = all(edge == int(edge) for edge in found.edges)
    ticks = [*bins[:: max(1, len(bins) // 6)]]
    axes.set_xticks(ticks, [f"{found.edges[i]:,.0f}" if whole else f"{found.edges[i]:.2g}" for i in ticks])
    axes.set_ylabel("rows")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _place(found: Spread, value: float) -> float:
    """Where a value stands on the axis of `_histogram`."""
    bin_ = max(0, min(len(found.counts) - 1, bisect_right(found.edges, value) - 1))
    begin, end = found.edges[bin_ : bin_ + 2]
    return bin_ + (value - begin) / (end - begin)


def _subtitle(report: Quality) -> str:
    splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
    what = f"{report.rows:,} rows" if report.split == "all" else f"{report.rows:,} rows of '{report.split}'"
    parts = [what, f"splits: {splits}", f"kind: {report.kind}"]
    if report.steps:
        parts.append(f"steps: {', '.join(report.steps)}")
    return "   ·   ".join(parts)


def _findings(report: Quality) -> Sequence[tuple[str, str]]:
    """(severity, line); further lines of one finding have no severity."""
    lines: list[tuple[str, str]] = []
    for finding in report.findings[:12]:
        for number, line in enumerate(textwrap.wrap(finding.sentence, 130)):
            lines.append(("" if number else finding.severity, line))
    texts = shown_lines([text for _, text in lines])
    found = [(severity, text) for (severity, _), text in zip(lines, texts, strict=True)]
    return found or [("note", "Nothing that a person should mend was found.")]


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
