"""The command line of the fault matrix."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from faults.matrix import Place, UnavailableError, places, run, service
from faults.report import read_json, table, totals, write_json
from faults.world import Options

__all__ = ["main"]

EX_OK: Final = 0
EX_VIOLATED: Final = 1
EX_USAGE: Final = 64

_COMMAND: Final = "tox -e faults --"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"faults: {message} (see {_COMMAND} --help)", file=sys.stderr)
        raise SystemExit(EX_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix, or part of it. Returns 0 if every promise was kept, 1 if not, 64 for bad usage."""
    options = _parser().parse_args(argv)
    known = {place.name: place for place in places()}
    if options.list:
        for name, place in known.items():
            print(f"{name:48} {place.fault.summary}")
        return EX_OK
    chosen = [known[name] for name in options.cells or known if name in known]
    unknown = [name for name in options.cells if name not in known]
    if unknown:
        print(f"faults: there is no cell {unknown[0]} (see {_COMMAND} --list)", file=sys.stderr)
        return EX_USAGE
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(chosen, options)
    except UnavailableError as error:
        print(f"faults: {error}", file=sys.stderr)
        return EX_VIOLATED
    except KeyboardInterrupt:
        return 130


def _run(chosen: list[Place], options: argparse.Namespace) -> int:
    how = Options(
        freeze=options.freeze,
        patience=options.patience,
        logs=options.logs,
        sweeper=options.sweeper,
        rabbitmq=service("EVENTPACT_TEST_RABBITMQ", 5672),
        postgres=service("EVENTPACT_TEST_POSTGRES", 5432),
    )
    started = time.monotonic()
    done = read_json(options.json, seed=options.seed) if options.resume and options.json is not None else []
    finished = {(cell.column, cell.fault) for cell in done}
    chosen = [place for place in chosen if (place.column.name, place.fault.name) not in finished]

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    for cell in run(
        chosen, how, seed=options.seed, kills=options.kills, jobs=options.jobs, seconds=options.minutes * 60, say=say
    ):
        done.append(cell)
        if options.json is not None:  # what was found is not lost if this is interrupted
            write_json(options.json, done, how, seed=options.seed)
    print(table(done))
    print(
        f"\nseed {options.seed}, frozen and cut off for {how.freeze:.0f} s, {time.monotonic() - started:.0f} s in all"
    )
    print(totals(done, _COMMAND))
    return EX_VIOLATED if any(cell.complaints for cell in done) else EX_OK


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="faults",
        description="Do every fault to every engine, in real processes, and account for every accepted event.",
        epilog="Exit codes: 0 every promise was kept, 1 not, 64 bad usage.",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="what is drawn: how many sign up, who is killed (default: 0)"
    )
    parser.add_argument(
        "--cell",
        action="append",
        default=[],
        dest="cells",
        metavar="COLUMN/FAULT",
        help="only this one; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="name every cell, with what is done in it")
    parser.add_argument(
        "--kills",
        type=_natural,
        default=1,
        metavar="N",
        help="at least so many over the columns that promise (default: 1 a cell)",
    )
    parser.add_argument(
        "--freeze",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="how long a broker is frozen or cut off (default: 20)",
    )
    parser.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS", help="what recovery may take (default: 60)"
    )
    parser.add_argument("--jobs", type=_natural, default=1, metavar="N", help="how many cells at a time (default: 1)")
    parser.add_argument(
        "--minutes", type=float, default=90.0, metavar="N", help="begin no further cell after that (default: 90)"
    )
    parser.add_argument("--resume", action="store_true", help="only what the FILE of --json lacks, with the same seed")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of servers, workers and brokers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument(
        "--no-sweeper", action="store_false", dest="sweeper", help="break the outbox, to see that its loss is found"
    )
    return parser


def _natural(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
