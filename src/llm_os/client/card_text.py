"""Writes the card of a model version: front matter for the hub, then Markdown. Takes the facts, asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_os.client import yaml
from llm_os.client.tables import between, chance, inline, number, title
from llm_os.spec.units import format_bytes, format_duration

HUB_NAMES = {
    "macro_f1": "f1",
    "micro_f1": "f1",
    "span_f1": "f1",
    "mean_absolute_error": "mae",
    "rouge_l": "rouge",
    "spearman": "spearmanr",
    "pearson": "pearsonr",
}
"""Figures that the hub of Hugging Face calls otherwise."""


def written(facts: Mapping[str, Any]) -> str:
    """The whole card."""
    parts = [f"# {facts['version']}", *_sections(facts)]
    return f"---\n{yaml.dump(front_matter(facts))}---\n\n" + "\n\n".join(parts) + "\n"


def on(one: Mapping[str, Any]) -> str:
    """The rows that an evaluation judged, as people name them."""
    whole = one["start"] in {0, None} and one["stop"] is None
    rows = "" if whole else f" (rows {one['start']} to {one['stop'] if one['stop'] is not None else 'the end'})"
    return f"{(one['data'] or {}).get('name')}/{one['split']}{rows}"


def front_matter(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What Hugging Face's hub reads of a card (its format of November 2023), with the results in `model-index`."""
    names = [data["name"] for data in facts["data"].values() if data.get("name")]
    languages = {str(data["language"]) for data in facts["data"].values() if data.get("language")} - {"unknown"}
    metrics = {HUB_NAMES.get(name, name) for one in facts["evaluations"] for name in one["metrics"]}
    stated = facts["license"] not in {"not stated", "see its card"}
    front = {
        "license": str(facts["license"]).lower() if stated else "unknown",
        "base_model": facts["base"][0]["version"] if facts["base"] else None,
        "datasets": sorted(set(names)),
        "language": sorted(languages),
        "pipeline_tag": facts["model"]["task"],
        "library_name": "transformers" if facts["model"]["format"] == "safetensors" else None,
        "metrics": sorted(metrics),
        "model-index": [{"name": facts["version"], "results": [_result(facts, one) for one in facts["evaluations"]]}]
        if facts["evaluations"]
        else None,
    }
    return {name: value for name, value in front.items() if value}


def _result(facts: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    data = one["data"] or {}
    return {
        "task": {"type": facts["model"]["task"], "name": str(one["kind"])},
        "dataset": {
            "name": str(data.get("name")),
            "type": str(data.get("name")),
            "split": one["split"],
            "revision": data.get("digest"),
        },
        "metrics": [
            {
                "type": HUB_NAMES.get(name, name),
                "name": title(name),
                "value": round(figure["value"], 6),
                "args": {
                    "low": round(figure["low"], 6),
                    "high": round(figure["high"], 6),
                    "confidence": one["confidence"],
                }
                if figure["low"] is not None
                else None,
            }
            for name, figure in one["metrics"].items()
            if figure["value"] is not None
        ],
    }


def _sections(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## What it is\n\n" + _listed(_identity(facts))
    if facts["data"]:
        yield "## Data\n\n" + "\n\n".join(_data_text(role, data) for role, data in facts["data"].items())
    if facts["training"]:
        yield "## Training\n\n" + _training_text(facts["training"])
    yield "## How it did\n\n" + (
        "\n\n".join(_evaluation_text(one) for one in facts["evaluations"]) or "It has not been evaluated here."
    )
    yield "## Limits\n\n" + "\n".join(f"- {line}" for line in facts["limits"])
    licences = [f"- These weights: {facts['license']}"]
    licences += [f"- {one['version']}, which it was made from: {one['license']}" for one in facts["base"]]
    licences += [
        f"- The data {data.get('name', data['digest'])}: {data.get('license', 'not stated')}"
        for data in facts["data"].values()
    ]
    yield "## Licences\n\n" + "\n".join(licences)


def _identity(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    model = facts["model"]
    yield "Task", model["task"]
    yield "Architecture", model["architecture"]
    yield "Parameters", f"{model['parameters']:,}" if model["parameters"] else None
    yield "Stored as", f"{model['format']}, {model['precision']}, {format_bytes(model['size'])}"
    yield "Classes", ", ".join(map(str, model["labels"])) if model["labels"] else None
    yield "Longest text", f"{model['context_length']} tokens" if model["context_length"] else None
    yield "Made from", " < ".join(one["version"] for one in facts["base"]) or None
    yield (
        "Fetched from",
        facts["source"] or next((one["source"] for one in reversed(facts["base"]) if one["source"]), None),
    )
    yield "Made on", facts["made"]
    yield "Digest", f"`{facts['digest']}`"


def _data_text(role: str, data: Mapping[str, Any]) -> str:
    lines: list[tuple[str, Any]] = [
        ("Language", data.get("language")),
        ("Kind", data.get("kind")),
        ("Source", _inline_json(data.get("source"))),
        ("Licence", data.get("license")),
        ("Preparation", "; ".join(_inline_json(step) for step in data.get("steps") or ()) or "none"),
        ("Division", _inline_json(data.get("split"))),
        ("Left out", _inline_json(data.get("left_out"))),
    ]
    for name, split in (data.get("splits") or {}).items():
        rows = f"{split.get('rows'):,} rows" if split.get("rows") is not None else "?"
        classes = split.get("classes") or split.get("labels")
        lines.append((f"Split {name}", f"{rows}{', ' + _inline_json(classes) if classes else ''}"))
    lines.append(("Digest", f"`{data['digest']}`"))
    return f"**{data.get('name', role)}** ({role})\n\n" + _listed(lines)


def _training_text(training: Mapping[str, Any]) -> str:
    seconds = training.get("seconds")
    early = " (stopped early)" if training.get("stopped_early") else ""
    lines = [
        ("Method", training["method"]),
        (
            "Epochs",
            f"{training['epochs_run']}{early}, best {training['best_epoch']}" if "epochs_run" in training else None,
        ),
        ("Time in the epochs", format_duration(seconds) if seconds is not None else None),
        ("Precision", training.get("precision")),
        ("Rows", _inline_json(training.get("rows"))),
        ("Used", _used(training.get("usage") or {})),
        ("Options", _inline_json({k: v for k, v in training["options"].items() if v is not None})),
        ("Job", f"`{training['job']}`, llm-os {training['code']}"),
    ]
    history = training.get("history") or []
    names = (
        [name for name in history[0] if all(isinstance(entry.get(name), int | float) for entry in history)]
        if history
        else []
    )
    table = _table(names, [[_short(entry[name]) for name in names] for entry in history]) if names else ""
    return _listed(lines) + (f"\n\n{table}" if table else "")


def _evaluation_text(one: Mapping[str, Any]) -> str:
    """Figures, slices and comparisons of one evaluation."""
    percent = f"{one['confidence'] * 100:g} % interval"
    rows = [
        [title(name), number(figure["value"]), between(figure["low"], figure["high"])]
        for name, figure in one["metrics"].items()
    ]
    text = f"### {on(one)}: {one['count']:,} rows\n\n" + _table(["", "value", percent], rows)
    for column, parts in (one["slices"] or {}).items():
        cells = [
            [
                value,
                f"{part['count']:,}",
                *(f"{number(part[n][0])} ({between(*part[n][1:])})" for n in one["shown"] if n in part),
            ]
            for value, part in parts.items()
        ]
        text += "\n\n" + _table([column, "rows", *(title(name) for name in one["shown"])], cells)
    for other in one["comparisons"]:
        verdict = "certain" if other["certain"] else "not certain"
        text += (
            f"\n\nAgainst {other['against']}: {inline(other['metric'])} {other['difference']:+.4f} "
            f"({between(other['low'], other['high'])}), {chance(other['p'])} ({other['test']}); {verdict}."
        )
    notes = "".join(f" {name}: {value}." for name, value in (one["notes"] or {}).items())
    return text + f"\n\nIntervals: {one['interval']}.{notes} Job `{one['job']}`."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _listed(pairs: Iterator[tuple[str, Any]] | Sequence[tuple[str, Any]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs if value not in (None, "", "none of them"))


def _inline_json(value: Any) -> str:
    """A record on one line, as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inline_json(one)}" for name, one in value.items() if one not in (None, {}, []))
    if isinstance(value, list):
        return ", ".join(map(_inline_json, value))
    return "" if value is None else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _used(usage: Mapping[str, Any]) -> str:
    peak = f", {format_bytes(int(usage['peak_memory']))} at the peak" if usage.get("peak_memory") else ""
    return f"{usage['cpu_seconds']:,.0f} CPU seconds{peak}" if usage.get("cpu_seconds") else ""
