"""A world: one handler on fresh state, in which an event is handled once, twice, together or with an interruption."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

from eventpact_contracts.driver.recorder import names_of
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.handlers.ports import CURRENT, Attempt, Stepped, with_ports

__all__ = ["Interruption", "PortError", "StuckError", "World", "interrupted_at", "joined_at"]

T = TypeVar("T")

_GRACE_SECONDS: Final = 0.3
"""The time for which one call is held for the other. The other may be waiting for a lock of the first."""


class Interruption(BaseException):
    """The process of the handler is told to end."""


class PortError(ConnectionError):
    """A port fails before or after it did its work."""


class _Interrupting:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def at_call(self, point: str) -> None:
        raise self._error(f"interrupted {point}")

    def at_suspension(self, point: str) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel(f"interrupted {point}")
        yield from ()


def interrupted_at(place: int, error: type[BaseException]) -> Attempt:
    """An attempt that is interrupted at this point: by ``error`` at a call, by a cancellation at an await."""
    return Attempt(place, _Interrupting(error))


class _Joining:
    def __init__(self, world: World) -> None:
        self._world = world

    def at_call(self, point: str) -> None:  # noqa: ARG002
        self._world.let_other_in()

    def at_suspension(self, point: str) -> Generator[Any, Any, None]:  # noqa: ARG002
        yield from self._world.other_as_task().__await__()


def joined_at(world: World, place: int) -> Attempt:
    """An attempt that is held at this point until another has handled the same event."""
    return Attempt(place, _Joining(world))


class StuckError(Exception):
    """A call of the handler did not end."""


class World:
    """A handler on fresh state.

    Args:
        subject: the contract class's instance, with its hooks.
        event: the event that is handled.

    Attributes:
        failures: the errors of the calls, in the order in which they ended.
    """

    def __init__(self, subject: Any, event: Any) -> None:
        self.failures: list[BaseException] = []
        self._subject = subject
        self._event = event
        self._seconds = float(getattr(subject, "settle_timeout", 5.0))
        self._entries: list[Entry] = []
        self._running: list[threading.Thread | asyncio.Future[Any]] = []
        self._calls = 0
        self._stack = ExitStack()
        self._async_stack = AsyncExitStack()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            self._runner = stack.enter_context(asyncio.Runner())
            self._executor = ThreadPoolExecutor()
            self._runner.get_loop().set_default_executor(self._executor)
            stack.callback(lambda: self._runner.run(self._async_stack.aclose()))
            made = self._resolved(self._subject.handler())
            if hasattr(type(made), "__aenter__"):
                made = self._runner.run(self._async_stack.enter_async_context(made))
            elif hasattr(type(made), "__enter__") and not hasattr(made, "handle"):
                made = stack.enter_context(made)
            if not callable(getattr(made, "handle", None)):
                raise TypeError(f"handler() made {made!r}; return an object with handle(event)")
            self._in_loop = inspect.iscoroutinefunction(made.handle) or bool(
                getattr(self._subject, "needs_loop", False)
            )
            self._handler = with_ports(made)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def state(self) -> Any:
        """The state that the handler changed."""
        return self._resolved(self._subject.state())

    def handle(self, attempt: Attempt | None = None) -> BaseException | None:
        """Handle the event, and return the error that was raised."""
        attempt = attempt or Attempt()
        if self._in_loop:
            return self._run(self._attempted_inside(attempt))
        error = self._attempted(attempt)
        self._join()
        return error

    def handle_together(self) -> None:
        """Handle the event twice, both calls started at once."""
        if self._in_loop:
            self._run(_both(self._attempted_inside(Attempt()), self._attempted_inside(Attempt())))
            return
        start = threading.Barrier(2)

        def call() -> None:
            start.wait()
            self._attempted(Attempt())

        for _ in range(2):  # this thread could not stop waiting for one that the other blocks
            self._thread(call)
        self._join()

    def let_other_in(self) -> None:
        """Let another call handle the event now, and hold this one meanwhile."""
        loop = self._runner.get_loop()
        if self._in_loop and _running_loop() is not loop:
            other = asyncio.run_coroutine_threadsafe(self._attempted_inside(Attempt()), loop)
            with suppress(TimeoutError):
                other.result(_GRACE_SECONDS)
            return
        if self._in_loop:
            thread = self._thread(lambda: asyncio.run(self._attempted_inside(Attempt())))
        else:
            thread = self._thread(lambda: self._attempted(Attempt()))
        thread.join(_GRACE_SECONDS)

    async def other_as_task(self) -> None:
        """Let another task handle the event now, and hold this one meanwhile."""
        await asyncio.wait([asyncio.create_task(self._attempted_inside(Attempt()))], timeout=_GRACE_SECONDS)

    def trace(self) -> Trace:
        return Trace(tuple(sorted(self._entries, key=lambda entry: entry.time)))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result, after everything that the calls left running in tasks and threads has ended."""

        async def settled() -> T:
            async with asyncio.timeout(self._seconds):
                result = await work
                while self._running:
                    running = self._running.pop()
                    if isinstance(running, threading.Thread):
                        await asyncio.to_thread(running.join)
                    else:
                        await asyncio.wait([running])
                # An interruption leaves threads of to_thread running, whose work must be done before it is looked at.
                executor, self._executor = self._executor, ThreadPoolExecutor()
                asyncio.get_running_loop().set_default_executor(self._executor)
                await asyncio.to_thread(executor.shutdown)
            return result

        try:
            return self._runner.run(settled())
        except TimeoutError:
            raise StuckError(f"it did not end within {self._seconds:g} s") from None

    def _thread(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=copy_context().run, args=(work,), name="eventpact-handler", daemon=True)
        self._running.append(thread)
        thread.start()
        return thread

    def _join(self) -> None:
        deadline = time.monotonic() + self._seconds
        while self._running:
            thread = self._running.pop()
            assert isinstance(thread, threading.Thread)
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise StuckError(f"it did not end within {self._seconds:g} s")

    def _attempted(self, attempt: Attempt) -> BaseException | None:
        number = self._starts()
        token = CURRENT.set(attempt)
        try:
            result = self._handler.handle(self._event)
            if inspect.isawaitable(result):
                asyncio.run(_result_of(Stepped(result, attempt)))
        except BaseException as error:  # noqa: BLE001 - an outcome of the call
            return self._ends(number, error)
        finally:
            CURRENT.reset(token)
        return self._ends(number, None)

    async def _attempted_inside(self, attempt: Attempt) -> BaseException | None:
        number = self._starts()

        async def call() -> None:
            CURRENT.set(attempt)
            result = self._handler.handle(self._event)
            if inspect.isawaitable(result):
                await Stepped(result, attempt)

        # A task of its own, so that an interruption cancels it and nothing else.
        task = asyncio.ensure_future(call())
        self._running += [task] if _running_loop() is self._runner.get_loop() else []
        await asyncio.wait([task])
        return self._ends(number, asyncio.CancelledError() if task.cancelled() else task.exception())

    def _starts(self) -> int:
        self._calls += 1
        self._note(Kind.STARTED, self._calls)
        return self._calls

    def _ends(self, number: int, error: BaseException | None) -> BaseException | None:
        if error is None:
            self._note(Kind.SUCCEEDED, number)
            return None
        self.failures.append(error)
        self._note(Kind.FAILED, number, exception=names_of(error), note=str(error))
        return error

    def _note(self, kind: Kind, number: int, **more: Any) -> None:
        entry = Entry(
            kind=kind,
            time=time.monotonic(),
            caller=f"call {number}",
            event=str(getattr(self._event, "event_id", "")),
            event_type=type(self._event).__name__,
            handler=type(self._handler).__name__,
            **more,
        )
        self._entries.append(entry)

    def _resolved(self, value: Any) -> Any:
        if inspect.isawaitable(value) and not hasattr(type(value), "__aenter__"):
            return self._runner.run(_result_of(value))
        return value


async def _both(*calls: Coroutine[Any, Any, Any]) -> None:
    await asyncio.gather(*calls)


async def _result_of(value: Awaitable[Any]) -> Any:
    return await value


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
