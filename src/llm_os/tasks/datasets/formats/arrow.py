"""Arrow files (IPC file and stream form, Feather version 2), read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llm_os.errors import DataError
from llm_os.tasks.datasets.format import Format, Numbered
from llm_os.tasks.datasets.schema import naming

BATCH = 1024
"""Rows that are in memory together."""


class Arrow(Format):
    endings = (".arrow", ".feather", ".ipc")
    begins = (b"ARROW1", b"\xff\xff\xff\xff")

    def rows(self, path: Path) -> Iterator[Numbered]:
        import pyarrow
        from pyarrow import ipc

        number = 0
        try:
            with pyarrow.memory_map(str(path)) as file:
                whole = file.read(6) == b"ARROW1"
                file.seek(0)
                reader = ipc.open_file(file) if whole else ipc.open_stream(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if whole else reader
                name = naming(reader.schema, path)
                for batch in batches:
                    for start in range(0, batch.num_rows, BATCH):
                        for row in batch.slice(start, BATCH).to_pylist():
                            number += 1
                            yield number, name(row)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"'{path.name}' cannot be read as Arrow after row {number}: {str(error).splitlines()[0]}.",
                hint="It was probably cut off; copy it again.",
            ) from error


PLUGIN = Arrow()
