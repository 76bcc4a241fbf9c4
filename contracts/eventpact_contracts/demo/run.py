"""The demo itself: the same steps with each dispatcher, and a table of the measured figures."""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from eventpact.infrastructure.celery.embedded_broker import BrokerError, EmbeddedBroker
from eventpact_contracts.demo.mail_server import MailServer
from eventpact_contracts.demo.processes import DemoError, Process, Server, Worker

__all__ = ["main"]

_ACCOUNTS: Final = 30
_FLAKY: Final = 3
_HELD: Final = 4
_MAIL_SECONDS: Final = 0.05
_RECOVERY_SECONDS: Final = 25.0


def main() -> int:
    """Run the demo, print its table. Returns the exit code."""
    started = time.monotonic()
    columns: list[dict[str, str]] = []
    try:
        for dispatcher in ("sync", "asyncio", "celery"):
            with tempfile.TemporaryDirectory(prefix="eventpact-demo-") as folder, ExitStack() as stack:
                columns.append(_try(dispatcher, Path(folder), stack))
    except (DemoError, BrokerError) as error:
        print(f"eventpact demo: {error}", file=sys.stderr)
        return 1
    print(_table(columns))
    print(
        "\nEach dispatcher by itself, without the outbox, which is on by default for asyncio and celery."
        f"\nMeasured in this run, in {time.monotonic() - started:.0f} s. Nothing is left running."
    )
    return 0


def _try(dispatcher: str, folder: Path, stack: ExitStack) -> dict[str, str]:
    """The measured figures of one dispatcher, each with its name."""
    mail = stack.enter_context(MailServer(_MAIL_SECONDS))
    environment = {
        "EVENTPACT_DATA_DIR": str(folder),
        "TMPDIR": str(folder),  # the files of a killed process go with the folder
        "EVENTPACT_SMTP": mail.url,
        "EVENTPACT_SMTP_STARTTLS": "false",
        "EVENTPACT_RATE_LIMIT": "10000/minute",
        "EVENTPACT_RETRY_BACKOFF": "0.5",
        "EVENTPACT_DRAIN_TIMEOUT": "3",
        "EVENTPACT_OUTBOX": "false",  # each dispatcher as it is
    }
    worker: Process | None = None
    if dispatcher == "celery":
        broker = stack.enter_context(EmbeddedBroker(folder / "broker"))
        environment |= {
            "EVENTPACT_BROKER": broker.url,
            # What a killed worker had fetched is delivered again after this time; 5 minutes by default.
            "EVENTPACT_CELERY_ACKS_LATE": "true",
            "EVENTPACT_CELERY_VISIBILITY_TIMEOUT": "3",
        }
    _say(dispatcher, "starting the server" + (", the broker and a worker" if dispatcher == "celery" else ""))
    server = stack.enter_context(Server(folder, environment, dispatcher))
    if dispatcher == "celery":
        worker = stack.enter_context(Worker(folder, environment))

    _say(dispatcher, f"{_ACCOUNTS} people sign up; the mail server takes {_MAIL_SECONDS * 1000:.0f} ms a mail")
    people = [f"person{number}@example.com" for number in range(_ACCOUNTS)]
    seconds = [server.sign_up(address)[1] for address in people]
    mail.wait_for(lambda: len(mail.mails) >= _ACCOUNTS, _RECOVERY_SECONDS)
    codes = mail.received()
    verified = sum(server.verify(address, codes[address] or "") for address in people if address in codes)

    _say(dispatcher, f"the mail server refuses {_FLAKY} mails at first")
    flaky = {f"flaky{number}@example.com" for number in range(_FLAKY)}
    for address in flaky:
        server.sign_up(address)
    mail.wait_for(lambda: mail.refusals >= _FLAKY, _RECOVERY_SECONDS)
    if worker is not None:  # the others declare no retries
        mail.wait_for(lambda: flaky <= dict(mail.mails).keys(), _RECOVERY_SECONDS)
    retried = len(flaky & mail.received().keys())

    accepted = _sign_up_and_kill(dispatcher, mail, server, worker)
    _say(dispatcher, "restarting; are the accepted sign-ups mailed now?")
    mail.release()
    (worker or server).start()
    if worker is None:
        # Whatever a restarted process still had to do, it has done when it has handled something new.
        server.sign_up("last@example.com")
        mail.wait_for(lambda: "last@example.com" in dict(mail.mails), _RECOVERY_SECONDS)
    else:
        mail.wait_for(lambda: accepted <= dict(mail.mails).keys(), _RECOVERY_SECONDS)
    lost = accepted - mail.received().keys()
    return {
        "": dispatcher,
        "response, median": f"{statistics.median(seconds) * 1000:.0f} ms",
        "response, 95th percentile": f"{statistics.quantiles(seconds, n=20)[-1] * 1000:.0f} ms",
        "mails sent": f"{len(codes)} of {_ACCOUNTS}",
        "codes redeemed": f"{verified} of {len(codes)}",
        "failures retried with success": f"{retried} of {mail.refusals}",
        "lost after the kill": f"{len(lost)} of {len(accepted)} accepted",
    }


def _sign_up_and_kill(dispatcher: str, mail: MailServer, server: Server, worker: Process | None) -> set[str]:
    """Returns the addresses whose sign-up was accepted before the process that handles them was killed."""
    _say(dispatcher, f"{_HELD} people sign up, and the process that handles them is killed half-way")
    accepted: set[str] = set()

    def sign_up(address: str) -> None:
        try:
            if server.sign_up(address)[0] == 202:
                accepted.add(address)
        except OSError:
            pass  # killed before it answered, so it has not accepted

    threads = [threading.Thread(target=sign_up, args=(f"held{number}@example.com",)) for number in range(_HELD)]
    for thread in threads:
        thread.start()
    if not mail.wait_for(mail.holding, _RECOVERY_SECONDS):
        raise DemoError("no mail was begun before the kill")
    if dispatcher != "sync":
        for thread in threads:
            thread.join()
    (worker or server).kill()
    for thread in threads:
        thread.join()
    return accepted


def _say(dispatcher: str, text: str) -> None:
    print(f"  {dispatcher:8} {text} ...", file=sys.stderr, flush=True)


def _table(columns: list[dict[str, str]]) -> str:
    left = max(map(len, columns[0]))
    widths = [max(map(len, column.values())) for column in columns]
    lines = [""]
    for label in columns[0]:
        cells = (column[label].rjust(width) for column, width in zip(columns, widths, strict=True))
        lines.append("  ".join([label.ljust(left), *cells]))
    return "\n".join(lines)
