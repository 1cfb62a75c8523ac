"""A recorded run as a table, a row an event, for notebooks and spreadsheets: csv and parquet.

Columns that say nothing about a kind of event are empty (in parquet: null).

Threads: any.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import chain
from typing import IO, Any

from dtm.errors import TraceError
from dtm.run.recording import CALL, IDLE_FLAG, KEY, PART, RECEIVE, RUN, SEND, STRIP
from dtm.trace.files import INSTANTS
from dtm.trace.lanes import KIND_NAMES
from dtm.trace.recorded import RecordedRun

_MESSAGES = frozenset({SEND, RECEIVE})
_SPANS = frozenset(KIND_NAMES) - frozenset(INSTANTS)
_OF_CALLS = frozenset(KIND_NAMES) - _MESSAGES - {RUN}
Row = dict[str, Any]

# Name, type in parquet, of which kinds of events, and where it is found.
COLUMNS: list[tuple[str, str, frozenset[int], Callable[[RecordedRun, Row], Any]]] = [
    ("worker", "int32", frozenset(KIND_NAMES), lambda _, row: row["rank"]),
    ("host", "string", frozenset(KIND_NAMES), lambda run, row: run.hosts[row["rank"]]),
    ("kind", "string", frozenset(KIND_NAMES), lambda _, row: KIND_NAMES[row["kind"]]),
    ("begin", "float64", frozenset(KIND_NAMES), lambda _, row: row["begin"]),
    ("end", "float64", _SPANS, lambda _, row: row["end"]),
    ("own_seconds", "float64", frozenset({STRIP}), lambda _, row: row["own"]),
    ("function", "string", _OF_CALLS, lambda run, row: run.functions[row["function"]]),
    ("call", "int64", _OF_CALLS, lambda _, row: row["number"]),
    ("first_item", "int64", frozenset({STRIP}), lambda _, row: row["index"]),
    (
        "items", "int64", frozenset({STRIP, CALL, PART}) | _MESSAGES,
        lambda _, row: int(row["end"]) if row["kind"] == CALL else row["count"],
    ),
    ("failed", "bool", frozenset({STRIP}), lambda _, row: bool(row["flag"])),
    ("stack", "int64", _SPANS - _MESSAGES - {RUN}, lambda _, row: row["peer"]),
    ("peer", "int64", _MESSAGES | {PART}, lambda _, row: row["peer"]),
    (
        "message", "string", _MESSAGES,
        lambda run, row: run.message_names[row["flag"] & ~IDLE_FLAG],
    ),
    ("bytes", "int64", _MESSAGES, lambda _, row: row["index"]),
    ("serial", "int64", _MESSAGES, lambda _, row: row["number"]),
    ("load_seconds", "float64", frozenset({RECEIVE}), lambda _, row: row["own"]),
    ("parent_call", "int64", frozenset({CALL}), lambda _, row: row["count"]),
    ("parent_item", "int64", frozenset({CALL}), lambda _, row: row["index"]),
    ("key", "int64", frozenset({PART, KEY}), lambda _, row: int(row["end"])),
    ("depth", "int64", frozenset({CALL, PART}), lambda _, row: int(row["own"])),
]  # fmt: skip
_CHUNK = 65_536


def _rows(run: RecordedRun, start: int) -> list[list[Any]]:
    events = run.events[start : start + _CHUNK]
    names = events.dtype.names or ()
    raw = zip(*(events[name].tolist() for name in names), strict=True)
    rows = (dict(zip(names, each, strict=True)) for each in raw)
    return [
        [find(run, row) if row["kind"] in kinds else None for _, _, kinds, find in COLUMNS]
        for row in rows
    ]


def write_csv(run: RecordedRun, file: IO[str]) -> None:
    """Write a run as lines of values."""
    writer = csv.writer(file)
    writer.writerow([name for name, *_ in COLUMNS])
    starts = range(0, len(run.events), _CHUNK)
    writer.writerows(chain.from_iterable(_rows(run, start) for start in starts))


def write_parquet(run: RecordedRun, file: IO[bytes]) -> None:
    """Write a run as a parquet file."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise TraceError("the format parquet needs: pip install pyarrow") from None
    types = {"bool": pa.bool_()}
    schema = pa.schema(
        [(name, types.get(kind) or getattr(pa, kind)()) for name, kind, *_ in COLUMNS]
    )
    with ParquetWriter(file, schema) as writer:
        for start in range(0, len(run.events), _CHUNK):
            columns = zip(*_rows(run, start), strict=True)
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
