"""The command: ``python -m benchmarks [--quick] [--only ROW …] [--markdown F] [--json F]``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.figures import LAUNCHED, OURS, OVER_TCP, Row, measure_row
from benchmarks.kept import KeptRow, as_json, of_outcome, read, replaced
from benchmarks.machine import describe
from benchmarks.report import markdown
from benchmarks.rows import ROWS


def arguments_of(command_line: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    peers = [label for label in CONTENDERS if label not in (*OURS, *OVER_TCP, LAUNCHED)]
    parser.add_argument(
        "--peers", nargs="*", choices=peers, metavar="PEER", help=f"only these of {peers}"
    )
    parser.add_argument("--tcp", action="store_true", help="measure dtm over TCP on loopback too")
    parser.add_argument("--rounds", type=int, help="how often each contender gets its turn")
    parser.add_argument("--timeout", type=float, help="seconds that one program may take")
    parser.add_argument("--markdown", type=Path, help="write the report to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--keep", type=Path, help="put the rows measured into this file, in place of the old ones"
    )
    return parser.parse_args(command_line)


def chosen(args: argparse.Namespace) -> list[Row]:
    rows = [ROWS[name] for name in args.only or ROWS]
    if args.peers is not None:
        rows = [
            dataclasses.replace(
                row,
                peers=tuple(peer for peer in row.peers if peer in (*args.peers, row.against)),
                singly=tuple(peer for peer in row.singly if peer in args.peers),
            )
            for row in rows
        ]
    if args.tcp:
        rows = [
            dataclasses.replace(row, peers=(LAUNCHED, *row.peers)) if row.ours == OURS else row
            for row in rows
        ]
    changes = {"rounds": args.rounds, "timeout": args.timeout}
    given = {name: value for name, value in changes.items() if value is not None}
    return [dataclasses.replace(row, **given) for row in rows]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(command_line: Sequence[str] | None = None) -> int:
    args = arguments_of(command_line)
    machine = describe()
    before = read(args.keep) if args.keep and args.keep.exists() else []
    rows: list[KeptRow] = []
    for row in chosen(args):
        outcome = measure_row(row, quick=args.quick, tell=tell)
        rows.append(of_outcome(outcome, machine, time.strftime("%Y-%m-%d")))
        # Written row by row: a run takes long, and may be interrupted.
        if args.json:
            args.json.write_text(as_json(rows), encoding="utf-8")
        if args.keep:
            args.keep.write_text(as_json(replaced(before, rows)), encoding="utf-8")
        if args.markdown:
            args.markdown.write_text(markdown(rows), encoding="utf-8")
    if not args.markdown:
        print(markdown(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
