"""Parquet files, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llm_os.errors import DataError
from llm_os.tasks.datasets.format import Format, Numbered
from llm_os.tasks.datasets.schema import naming

BATCH = 4096
"""Rows that are in memory together."""


class Parquet(Format):
    endings = (".parquet", ".pq")
    begins = (b"PAR1",)

    def rows(self, path: Path) -> Iterator[Numbered]:
        import pyarrow
        from pyarrow import parquet

        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                name = naming(file.schema_arrow, path)
                for batch in file.iter_batches(batch_size=BATCH):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, name(row)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"'{path.name}' cannot be read as parquet after row {number}: {str(error).splitlines()[0]}.",
                hint="It was probably cut off; copy it again.",
            ) from error


PLUGIN = Parquet()
