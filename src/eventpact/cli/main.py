"""The ``eventpact`` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from eventpact.settings import Settings

__all__ = ["main"]

EX_OK: Final = 0
EX_ERROR: Final = 1
EX_USAGE: Final = 64


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EX_USAGE)


_SETTINGS = {
    "dispatcher": "what carries the events: sync, asyncio (default) or celery",
    "broker": "redis://… or amqp://…; an embedded Valkey where none is given (celery only)",
    "database": "postgresql://… or sqlite:///…; a SQLite file in the data folder where none is given",
    "smtp": "smtp://user:password@host:port or smtps://…; a folder of .eml files where none is given",
    "data_dir": "where the embedded defaults keep their files (default: .eventpact)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed, 2 could not run (verify), 64 bad usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["verify"]:  # has options of its own
        return _verify(arguments[1:])
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options) or EX_OK)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("eventpact"):
            raise
        print(f"eventpact: {error.name} is not installed; pip install 'eventpact[all]'", file=sys.stderr)
        return EX_ERROR
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="eventpact",
        description="Domain events behind one interface, carried by interchangeable dispatchers.",
        epilog="Every setting can be given as EVENTPACT_<NAME> in the environment or in .env, too. "
        "Exit codes: 0 done, 1 failed, 64 bad usage.",
    )
    parser.add_argument("--version", action="version", version=f"eventpact {version('eventpact')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve the HTTP API", description="Serve the HTTP API.")
    _add_settings(serve, "dispatcher", "broker", "database", "smtp", "data_dir")
    serve.add_argument(
        "--outbox",
        action=argparse.BooleanOptionalAction,
        help="write events in the same transaction as the data, so that no crash loses one"
        " (default: on, except with sync)",
    )
    serve.add_argument("--host", help="the address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="the port to listen on (default: 8000; 0 takes a free one)")
    serve.set_defaults(run=_serve)

    worker = commands.add_parser(
        "worker",
        help="handle the events that a server with --dispatcher celery publishes",
        description="Handle the events that a server with --dispatcher celery publishes. Takes the same settings.",
    )
    _add_settings(worker, "broker", "database", "smtp", "data_dir")
    worker.add_argument("--concurrency", type=int, default=2, help="how many processes (default: %(default)s)")
    worker.set_defaults(run=_worker)

    relay = commands.add_parser(
        "relay",
        help="deliver what is in the outbox, as every server does too",
        description="Deliver what is in the outbox, as every server does too. Takes the same settings as the server.",
    )
    _add_settings(relay, "dispatcher", "broker", "database", "smtp", "data_dir")
    relay.set_defaults(run=_relay)

    _add_failed(commands)

    migrate = commands.add_parser(
        "migrate",
        help="bring the database to the newest schema",
        description="Bring the database to the newest schema.",
    )
    _add_settings(migrate, "database", "data_dir")
    migrate.set_defaults(run=_migrate)

    demo = commands.add_parser(
        "demo",
        help="see every dispatcher at work, and killed half-way",
        description="Start the real server with each dispatcher in turn, sign up, kill, restart, and print what "
        "happened. Takes less than a minute; leaves nothing running or lying about.",
    )
    demo.set_defaults(run=_demo)

    commands.add_parser(
        "verify", help="check a dispatcher against the contract (see eventpact verify --help)", add_help=False
    )
    return parser


def _add_failed(commands: argparse._SubParsersAction[_Parser]) -> None:
    failed = commands.add_parser(
        "failed",
        help="see what could not be delivered, and deliver it again",
        description="See what could not be delivered, and deliver it again.",
    )
    actions = failed.add_subparsers(metavar="ACTION", required=True, dest="action")
    listing = actions.add_parser("list", help="list it, addresses masked")
    show = actions.add_parser("show", help="show one with everything that is known of it, addresses included")
    show.add_argument("id", type=int, metavar="ID")
    retry = actions.add_parser(
        "retry",
        help="dispatch it again, to the handler that failed",
        description="Dispatch it again, to the handler that failed. Takes the same settings as the server; without an"
        " outbox, handlers that no worker runs are run by this command, with the settings that it has.",
    )
    _add_settings(retry, "dispatcher", "broker", "smtp")
    retry.add_argument(
        "--outbox",
        action=argparse.BooleanOptionalAction,
        help="whether the server has an outbox, from which it delivers (default: on, except with sync)",
    )
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", type=int, nargs="*", default=[], metavar="ID")
    which.add_argument("--all", action="store_true", help="all that can be dispatched")
    drop = actions.add_parser("drop", help="forget one")
    drop.add_argument("id", type=int, metavar="ID")
    for action in (listing, show, retry, drop):
        _add_settings(action, "database", "data_dir")
        action.set_defaults(run=_failed)


def _add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        choices = ("sync", "asyncio", "celery") if name == "dispatcher" else None
        metavar = None if choices else "DIR" if name == "data_dir" else "URL"
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=name, help=_SETTINGS[name], choices=choices, metavar=metavar
        )


def _load(options: argparse.Namespace, **more: object) -> Settings:
    from eventpact.settings import SettingsError, load_settings

    given = {name: getattr(options, name, None) for name in (*_SETTINGS, "host", "port", "outbox")} | more
    try:
        return load_settings(**given)
    except SettingsError as error:
        print(f"eventpact: {error}", file=sys.stderr)
        raise SystemExit(EX_USAGE) from None


def _start(command: Callable[[], int]) -> int:
    from eventpact.bootstrap import CannotStartError
    from eventpact.settings import SettingsError

    try:
        return command()
    except SettingsError as error:
        print(f"eventpact: {error}", file=sys.stderr)
        return EX_USAGE
    except CannotStartError as error:
        print(f"eventpact: {error}", file=sys.stderr)
        return EX_ERROR


def _serve(options: argparse.Namespace) -> int:
    from eventpact.cli.serve import serve

    settings = _load(options)
    return _start(lambda: serve(settings))


def _worker(options: argparse.Namespace) -> int:
    settings = _load(options, dispatcher="celery")
    if options.concurrency < 1:
        print("eventpact worker: --concurrency must be 1 or more", file=sys.stderr)
        return EX_USAGE
    # Its child processes read the settings from the environment, as a worker started by Celery's own command does.
    for name in ("broker", "database", "smtp", "data_dir"):
        if getattr(options, name, None) is not None:
            os.environ[f"EVENTPACT_{name.upper()}"] = str(getattr(settings, name))
    os.environ["EVENTPACT_DISPATCHER"] = "celery"

    def work() -> int:
        from eventpact.worker import run

        return run(concurrency=options.concurrency)

    return _start(work)


def _relay(options: argparse.Namespace) -> int:
    from eventpact.cli.relay import relay

    settings = _load(options, outbox=True)
    return _start(lambda: relay(settings))


def _failed(options: argparse.Namespace) -> int:
    from eventpact.cli.failed import run

    settings = _load(options)
    return _start(lambda: run(options, settings))


def _migrate(options: argparse.Namespace) -> int:
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from eventpact.infrastructure.persistence.database import Database

    try:
        database = Database(_load(options).database_url)
    except OSError as error:
        print(f"eventpact: {error.filename}: {error.strerror}", file=sys.stderr)
        return EX_ERROR
    try:
        database.migrate()
    except CommandError:
        print("eventpact: the database has the schema of a newer version; upgrade eventpact", file=sys.stderr)
        return EX_ERROR
    except SQLAlchemyError as error:
        print(f"eventpact: the database cannot be migrated: {type(error).__name__}; is it up?", file=sys.stderr)
        return EX_ERROR
    finally:
        database.close()
    print("the database has the newest schema")
    return EX_OK


def _demo(_: argparse.Namespace) -> int:
    from eventpact_contracts.demo import main as demo

    _end_in_good_order_when_told_to()
    return demo()


def _verify(arguments: list[str]) -> int:
    try:
        from eventpact_contracts.cli import main as verify
    except ModuleNotFoundError as error:
        print(f"eventpact: {error.name} is not installed; pip install 'eventpact[contracts]'", file=sys.stderr)
        return 2
    _end_in_good_order_when_told_to()
    return verify(arguments)


def _end_in_good_order_when_told_to() -> None:
    """SIGTERM would end this process alone, and leave those that it has started."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
