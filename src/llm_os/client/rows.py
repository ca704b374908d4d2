"""Rows of what a script has in memory or makes as it goes: frames, Arrow tables, data sets, iterables. Imports none
of their libraries: each is known by its methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_os.errors import DataError, EmptyDataError, InvalidInputError

BATCH = 2048
"""Rows of a frame that are turned into dictionaries together."""
EXAMPLE = "Give dictionaries, (text, label) pairs, or texts."


def title_of(source: Any) -> str:
    """What messages call it."""
    if _is_pandas(source) or _is_polars(source):
        return "the frame"
    return "the table" if hasattr(source, "to_batches") else "the iterable"


def rows_of(source: Any, *, skip: bool) -> Iterator[Any]:
    """Dictionaries by column, one by one. A row that is none is an error, or becomes None (counted later) with `skip`.

    Raises:
        InvalidInputError: it has no rows. DataError, EmptyDataError: what is wrong with them, and where.
    """
    number = 0
    for number, row in enumerate(_guarded(_raw(source)), 1):
        found = _row(row)
        if found is None and not skip:
            raise DataError(f"Row {number} of {title_of(source)} is {_shown(row)}, not a row.", hint=EXAMPLE)
        yield found
    if not number:
        raise EmptyDataError(f"{title_of(source).capitalize()} has no rows.", hint="Is it a generator that was used?")


def _raw(source: Any) -> Iterable[Any]:
    if _is_pandas(source):
        _unique(list(source.columns))
        return _pandas(source)
    if _is_polars(source):
        return _polars(source)
    if hasattr(source, "to_batches"):
        _unique(list(source.schema.names))
        return (row for batch in source.to_batches(max_chunksize=BATCH) for row in batch.to_pylist())
    if isinstance(source, Mapping):
        raise InvalidInputError(
            f"One dictionary with {', '.join(map(str, list(source)[:5])) or 'nothing'} is no list of rows.",
            hint="For example: load_data([{'text': ..., 'label': ...}, ...], test=[...]).",
        )
    if not isinstance(source, Iterable):
        raise InvalidInputError(
            f"{_shown(source)} is no source of data.", hint=f"A name, a file, a frame, rows. {EXAMPLE}"
        )
    names = _class_names(source)
    if not names:
        return source
    return ({**row, **{c: known[row[c]] for c, known in names.items() if 0 <= row[c] < len(known)}} for row in source)


def _is_pandas(source: Any) -> bool:
    return hasattr(source, "iloc") and hasattr(source, "to_dict")


def _is_polars(source: Any) -> bool:
    return hasattr(source, "collect_schema")


def _pandas(frame: Any) -> Iterator[Any]:
    for start in range(0, len(frame), BATCH):
        part = frame.iloc[start : start + BATCH]
        yield from part.astype(object).where(part.notna(), None).to_dict("records")


def _polars(frame: Any) -> Iterator[Any]:
    batches = frame.collect_batches() if hasattr(frame, "collect_batches") else [frame]
    for batch in batches:
        yield from batch.iter_rows(named=True)


def _class_names(source: Any) -> dict[str, list[str]]:
    """Names of classes by column, of a data set of `datasets`."""
    features = getattr(source, "features", None)
    listed = features.items() if isinstance(features, Mapping) else ()
    return {column: list(feature.names) for column, feature in listed if hasattr(feature, "int2str")}


def _unique(columns: list[Any]) -> None:
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise DataError(f"Two columns are named '{twice[0]}'.", hint="Rename one of them.")


def _guarded(rows: Iterable[Any]) -> Iterator[Any]:
    """The rows; an error of the code that makes them is told with the number of the last good one."""
    number = 0
    try:
        for row in rows:
            number += 1
            yield row
    except Exception as error:
        raise DataError(
            f"The iterable raised {type(error).__name__} after row {number}: {error}.", hint="Nothing was kept."
        ) from error


def _row(row: Any) -> dict[str, Any] | None:
    if isinstance(row, Mapping):
        return {str(name): value for name, value in row.items()}
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str):
        return {"text": row[0], "label": row[1]}
    return None


def _shown(value: Any) -> str:
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")
