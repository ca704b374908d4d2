"""Pictures of a report as PNG files: confusion, reliability, slices, said against true. Knows figures, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BLUE, GREY = "#2b6cb0", "#a0aec0"
MOST_CLASSES = 40
"""A matrix of more classes cannot be read."""
CHINESE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "SimHei", "PingFang SC")


def draw(report: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the pictures that the report has figures for; answers what a person should know (none are drawn, ...)."""
    if find_spec("matplotlib") is None:
        return ["No pictures were drawn: matplotlib is not installed (pip install matplotlib)."]
    from matplotlib import rc_context

    with rc_context({"font.family": fonts(), "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        labels = report.get("labels")
        if report.get("confusion") and labels and len(labels) <= MOST_CLASSES:
            confusion(report["confusion"], [str(label) for label in labels], folder / "confusion.png")
        if report.get("calibration"):
            reliability(report, folder / "reliability.png")
        if report.get("slices"):
            slices(report, folder / "slices.png")
    return []


def fonts() -> list[str]:
    """DejaVu Sans (it comes with matplotlib), then a font with Chinese where the machine has one."""
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in CHINESE if name in there)]


def shown(labels: Sequence[str]) -> list[str]:
    """The labels, short; numbers in place of those that no font here can draw."""
    from matplotlib import font_manager

    faces = [font_manager.get_font(font_manager.findfont(name)) for name in fonts()]
    found = []
    for number, label in enumerate(labels):
        drawable = all(any(face.get_char_index(ord(c)) for face in faces) for c in label)
        short = label if len(label) <= 22 else label[:21] + "…"
        found.append(short if drawable else f"class {number}")
    return found


def confusion(counts: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Rows are true classes, columns what was said; the shade is the share of the row."""
    figure, axes = _figure(*(2 * (1.6 + 0.55 * min(len(labels), 16),)))
    names = shown(labels)
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if len(labels) <= 8 else 6
    for true, row in enumerate(counts):
        for said, number in enumerate(row):
            if number or len(labels) <= 8:
                colour = "white" if shares[true][said] > 0.55 else "black"
                axes.text(said, true, f"{number:,}", ha="center", va="center", color=colour, fontsize=size)
    axes.set_xticks(
        range(len(names)), names, rotation=45 if len(names) > 3 else 0, ha="right" if len(names) > 3 else "center"
    )
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="said", ylabel="true")
    _save(figure, path)


def reliability(report: Mapping[str, Any], path: Path) -> None:
    """Accuracy over confidence by bin, above the number of rows of each bin."""
    bins = report["calibration"]
    ece = report["metrics"]["ece"]
    figure, axes = _figure(4.2, 4.2)
    width = bins[0]["high"] - bins[0]["low"]
    middle = [(one["low"] + one["high"]) / 2 for one in bins]
    most = max(one["count"] for one in bins)
    axes.bar(middle, [0.2 * one["count"] / most for one in bins], 0.95 * width, color=GREY, alpha=0.5, label="rows")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="as sure as right")
    axes.plot(
        [one["confidence"] for one in bins], [one["accuracy"] for one in bins], color=BLUE, marker="o", label="model"
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(min(one["low"] for one in bins), 1), ylim=(0, 1.02))
    axes.set_title(f"ECE {ece['value']:.4f} ({ece['low']:.4f} to {ece['high']:.4f})", fontsize=9)
    axes.legend(loc="best", frameon=False, fontsize=8)
    _save(figure, path)


def slices(report: Mapping[str, Any], path: Path) -> None:
    """The first figure in each slice with its interval, beside the one over all rows."""
    name = report["shown"][0]
    lines = [
        (f"{column}: {value} ({part['count']:,})", part[name])
        for column, table in report["slices"].items()
        for value, part in table.items()
        if part[name][0] is not None
    ]
    if not lines:
        return
    figure, axes = _figure(6.0, 0.9 + 0.28 * len(lines))
    for place, (_, (value, low, high)) in enumerate(lines):
        bounds = [
            [max(0.0, value - (low if low is not None else value))],
            [max(0.0, (high if high is not None else value) - value)],
        ]
        axes.errorbar([value], [place], xerr=bounds, color=BLUE, marker="o", capsize=2, linewidth=1.2)
    axes.axvline(report["metrics"][name]["value"], color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(lines)), shown_lines([text for text, _ in lines]))
    axes.invert_yaxis()
    axes.set(xlabel=name.replace("_", " "))
    _save(figure, path)


def shown_lines(texts: Sequence[str]) -> list[str]:
    """Whole lines; signs that no font here can draw become `?`."""
    from matplotlib import font_manager

    faces = [font_manager.get_font(font_manager.findfont(name)) for name in fonts()]
    return ["".join(c if any(face.get_char_index(ord(c)) for face in faces) else "?" for c in text) for text in texts]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
