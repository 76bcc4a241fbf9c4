"""The ``eventpact`` command: its parser, and the dispatch to one module a command."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn

from eventpact.cli.output import OutputError, discard_output, output_faults, prepare_output
from eventpact.cli.signals import end_in_good_order_when_told_to

if TYPE_CHECKING:
    from eventpact.settings import Settings

EX_ERROR: Final = 1
EX_COULD_NOT_RUN: Final = 2
EX_USAGE: Final = 64
EX_INTERRUPTED: Final = 130
EX_READER_GONE: Final = 141

_SETTINGS: Final = {
    "dispatcher": "the engine that carries events: sync, asyncio (default) or celery",
    "broker": "redis://… or amqp://…; by default an embedded Valkey (celery only)",
    "database": "postgresql://… or sqlite:///…; by default a SQLite file in the data folder",
    "smtp": "smtp://user:password@host:port or smtps://…; by default a folder of .eml files",
    "data_dir": "the folder of the embedded defaults' files (default: .eventpact)",
    "outbox": "write events in the transaction of the data, so that no crash loses one (default: on, except with sync)",
    "host": "the address to listen on (default: 127.0.0.1)",
    "port": "the port to listen on (default: 8000; 0 takes a free one)",
}
"""The settings that options may set, each with its help."""

_METAVARS: Final = {"data_dir": "DIR", "host": "ADDRESS", "port": "NUMBER"}


class _Parser(argparse.ArgumentParser):
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        close = difflib.get_close_matches(str(value), action.choices or ())
        if close and value not in (action.choices or ()):
            raise argparse.ArgumentError(action, f"there is no {value!a}; did you mean {close[0]}?")
        super()._check_value(action, value)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Name the option that a misspelt one is closest to; argparse would quote its value for a command, too."""
        namespace, unknown = super().parse_known_args(args, namespace)
        for option in (each.partition("=")[0] for each in unknown if each.startswith("--")):
            if close := difflib.get_close_matches(option, self._option_string_actions):
                self.error(f"there is no {option}; did you mean {close[0]}?")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EX_USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file or sys.stderr)  # argparse's own ignores an output that cannot be written


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed, 2 could not run (verify), 64 bad usage."""
    prepare_output()
    with output_faults() as faults:
        try:
            try:
                code = _command(list(sys.argv[1:] if argv is None else argv), is_program=argv is None)
            finally:  # help and version end in SystemExit
                sys.stdout.flush()
        except (OutputError, SystemExit):
            if not faults:
                raise
    if not faults:
        return code
    discard_output()
    if isinstance(faults[0], BrokenPipeError):
        return EX_READER_GONE  # nobody reads the output any more, as behind ``| head``
    print(f"eventpact: the output cannot be written: {faults[0].strerror}", file=sys.stderr)
    return EX_ERROR


def _command(arguments: list[str], *, is_program: bool) -> int:
    verifies = arguments[:1] == ["verify"]  # it has a parser of its own
    try:
        if verifies:
            from eventpact_contracts.cli import main as verify
            from eventpact_contracts.driver.threads import end_in_time, forbid_exit

            end_in_good_order_when_told_to()
            if is_program:
                forbid_exit(EX_COULD_NOT_RUN)
            code = verify(arguments[1:])
            if is_program:
                end_in_time(code)
            return code
        parser = build_parser()
        if len(arguments) > 1 and re.match(r"--(?!help$|version$)", arguments[0]):
            parser.error(f"{arguments[0]} stands before the command; options follow it")
        options = parser.parse_args(arguments)
        for name in ("command", "action"):  # not required of argparse, which would not name an unknown option then
            if getattr(options, name, "") is None:
                parser.error(f"the following arguments are required: {name.upper()}")
        return _run(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("eventpact"):
            raise
        extra = "contracts" if verifies else "all"
        print(f"eventpact: {error.name} is not installed; pip install 'eventpact[{extra}]'", file=sys.stderr)
        return EX_COULD_NOT_RUN if verifies else EX_ERROR
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    from eventpact.environment import CannotStartError
    from eventpact.settings import load_settings

    try:
        # The demo reads no setting but its own.
        given = {name: getattr(options, name, None) for name in _SETTINGS}
        settings = None if options.command == "demo" else load_settings(**given)
        with _in_one_line(settings):
            code: int = import_module(f"eventpact.cli.{options.command}").run(options, settings)
    except CannotStartError as error:
        print(f"eventpact: {error}", file=sys.stderr)
        return error.exit_code
    return code


@contextmanager
def _in_one_line(settings: Settings | None) -> Generator[None]:
    """Turn a refusal of a disk, a network or a database, which is no fault of the program, into a CannotStartError."""
    from sqlalchemy.exc import SQLAlchemyError

    from eventpact.environment import CannotStartError
    from eventpact.infrastructure.persistence.opening import explain

    try:
        yield
    except OSError as error:
        # Of a file that was to be renamed the new name counts, which is the one that somebody knows.
        place = error.filename2 or error.filename
        reason = error.strerror or str(error) or type(error).__name__
        raise CannotStartError(reason if place is None else f"{place}: {reason}") from error
    except UnicodeError as error:
        raise CannotStartError(f"a text cannot be read or written: {error}") from error
    except SQLAlchemyError as error:
        raise CannotStartError(explain(error, settings.database_url if settings else "")) from error


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of every command but ``verify``."""
    parser = _Parser(
        prog="eventpact",
        description="Domain events behind one interface, carried by interchangeable dispatchers.",
        epilog="Every setting can be given as EVENTPACT_<NAME> in the environment or in .env, too. "
        "Exit codes: 0 done, 1 failed, 64 bad usage.",
    )
    parser.add_argument("--version", action="version", version=f"eventpact {version('eventpact')}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")

    serve = _add(commands, "serve", "serve the HTTP API")
    _add_settings(serve, "dispatcher", "broker", "database", "smtp", "data_dir", "outbox", "host", "port")

    worker = _add(
        commands,
        "worker",
        "handle the events that a server with --dispatcher celery publishes",
        "Takes the same settings as the server.",
    )
    _add_settings(worker, "broker", "database", "smtp", "data_dir", "outbox")
    worker.add_argument("--concurrency", type=int, default=2, help="the number of processes (default: %(default)s)")
    worker.set_defaults(dispatcher="celery")

    relay = _add(
        commands, "relay", "deliver the outbox, as every server does too", "Takes the same settings as the server."
    )
    _add_settings(relay, "dispatcher", "broker", "database", "smtp", "data_dir")
    relay.set_defaults(outbox=True)

    _add_failed(commands)

    migrate = _add(commands, "migrate", "bring the database to the newest schema")
    _add_settings(migrate, "database", "data_dir")
    migrate.add_argument(
        "--new-secret", action="store_true", help="accept a changed secret; codes mailed with the one before are void"
    )
    _add_settings(
        _add(
            commands,
            "prune",
            "remove used and expired codes, unverified accounts and failed deliveries that are old",
            "Run it once a day. EVENTPACT_RETENTION says how old, 30 days by default.",
        ),
        "database",
        "data_dir",
    )
    _add_settings(
        _add(
            commands,
            "settings",
            "list the settings in force, and the source of each",
            "Passwords and the secret are masked. Takes the same options as the server.",
        ),
        *_SETTINGS,
    )
    _add(
        commands,
        "demo",
        "see every dispatcher at work, and killed half-way",
        "Starts the real server with each dispatcher in turn, signs up, kills, restarts, and prints the results. Takes"
        " less than a minute; leaves nothing running or lying about.",
    )
    commands.add_parser(
        "verify", help="check a dispatcher against the contract (see eventpact verify --help)", add_help=False
    )
    return parser


def _add_failed(commands: argparse._SubParsersAction[_Parser]) -> None:
    failed = _add(commands, "failed", "list failed deliveries, and deliver them again")
    actions = failed.add_subparsers(metavar="ACTION", dest="action")
    listing = actions.add_parser("list", help="list them, addresses masked")
    show = actions.add_parser("show", help="show one in full, addresses included")
    show.add_argument("id", type=int, metavar="ID")
    retry = actions.add_parser(
        "retry",
        help="dispatch it again, to the handler that failed",
        description="Dispatch it again, to the handler that failed. Takes the same settings as the server; without an"
        " outbox, handlers that no worker runs are run by this command, with the settings that it has.",
    )
    _add_settings(retry, "dispatcher", "broker", "smtp", "outbox")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", type=int, nargs="*", default=[], metavar="ID")
    which.add_argument("--all", action="store_true", help="all that can be dispatched")
    drop = actions.add_parser("drop", help="remove one")
    drop.add_argument("id", type=int, metavar="ID")
    for action in (listing, show):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (listing, show, retry, drop):
        _add_settings(action, "database", "data_dir")


def _add(commands: argparse._SubParsersAction[_Parser], name: str, help_: str, more: str = "") -> _Parser:
    description = f"{help_[0].upper()}{help_[1:]}. {more}".strip()
    return commands.add_parser(name, help=help_, description=description)


def _add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        option = f"--{name.replace('_', '-')}"
        if name == "outbox":
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=_SETTINGS[name])
        elif name == "dispatcher":
            parser.add_argument(option, choices=("sync", "asyncio", "celery"), help=_SETTINGS[name])
        else:
            parser.add_argument(option, dest=name, metavar=_METAVARS.get(name, "URL"), help=_SETTINGS[name])
