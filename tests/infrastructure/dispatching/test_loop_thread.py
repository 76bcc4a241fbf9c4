"""One loop in a thread of its own, for whoever has none."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from contextvars import ContextVar
from typing import Any
from unittest.mock import Mock

import pytest

from eventpact.infrastructure.dispatching.threads import LoopThread


async def here() -> tuple[threading.Thread, asyncio.AbstractEventLoop]:
    return threading.current_thread(), asyncio.get_running_loop()


def test_everything_runs_on_one_loop_whose_thread_has_a_name_and_ends_with_it() -> None:
    loop = LoopThread()
    first, second = loop.run(here()), loop.run(here())
    assert first == second
    thread, own = first
    assert thread is not threading.current_thread()
    assert (thread.name, thread.daemon) == ("eventpact-loop", True)
    loop.close(1.0)
    assert not thread.is_alive()
    assert own.is_closed()


def test_what_is_raised_comes_back_whatever_it_is() -> None:
    async def fail(exception: BaseException) -> None:
        raise exception

    loop = LoopThread()
    for exception in (ValueError("no"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()):
        with pytest.raises(type(exception)) as caught:
            loop.run(fail(exception))
        assert caught.value is exception
    loop.close(1.0)


def test_the_callers_context_is_seen_and_not_changed() -> None:
    who = ContextVar("who", default="nobody")

    async def look() -> str:
        seen = who.get()
        who.set("somebody else")
        return seen

    loop = LoopThread()
    who.set("somebody")
    assert loop.run(look()) == "somebody"
    assert who.get() == "somebody"
    loop.close(1.0)


def test_once_closed_it_runs_nothing_and_leaves_no_coroutine_unawaited() -> None:
    loop = LoopThread()
    loop.run(here())
    loop.close(1.0)
    loop.close(1.0)
    with pytest.raises(RuntimeError, match=r"^the loop is closed$"):
        loop.run(here())  # an unawaited coroutine would be a warning, and a warning is an error here


def test_it_can_be_closed_before_anything_ran() -> None:
    loop = LoopThread()
    loop.cancel_all()
    loop.close(1.0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(here())


def test_its_own_thread_cannot_wait_for_itself() -> None:
    loop = LoopThread()

    async def again() -> None:
        loop.run(here())

    with pytest.raises(RuntimeError, match=r"^the loop's own thread cannot wait for what runs on it$"):
        loop.run(again())
    loop.close(1.0)


def test_closing_from_its_own_thread_does_not_wait_for_itself() -> None:
    loop = LoopThread()

    async def close() -> threading.Thread:
        loop.close(1.0)
        return threading.current_thread()

    loop.run(close()).join(5)


def test_what_runs_can_be_cancelled_and_the_loop_goes_on() -> None:
    loop, started = LoopThread(), threading.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    def cancel() -> None:
        assert started.wait(5)
        loop.cancel_all()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(asyncio.CancelledError):
        loop.run(hang())
    thread.join()
    assert loop.run(here())[0].is_alive()
    loop.close(1.0)


def test_its_thread_is_introduced_before_anything_runs_on_it() -> None:
    introduced: list[threading.Thread] = []
    loop = LoopThread(on_start=lambda: introduced.append(threading.current_thread()))
    assert introduced == []
    assert loop.run(here())[0] is introduced[0]
    assert len(introduced) == 1
    loop.close(1.0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own_and_leaves_the_parents_alone() -> None:
    loop = LoopThread()
    before = loop.run(here())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            loop.cancel_all()
            thread, own = loop.run(here())
            status = 0 if thread.is_alive() and own is not before[1] else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert loop.run(here()) == before
    loop.close(1.0)


def test_a_loop_whose_thread_could_not_be_started_is_started_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = LoopThread()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError, match="new thread"):
            loop.run(here())
    assert loop.run(here())[0].name == "eventpact-loop"
    loop.close(1.0)


def test_closing_does_not_wait_longer_than_it_is_told_for_a_handler_that_blocks_the_loop() -> None:
    loop, entered, release = LoopThread(), threading.Event(), threading.Event()

    async def block() -> None:
        entered.set()
        assert release.wait(10)

    caller = threading.Thread(target=loop.run, args=(block(),))
    caller.start()
    assert entered.wait(5)
    closer = threading.Thread(target=loop.close, args=(0.01,))
    closer.start()
    closer.join(5)
    assert not closer.is_alive()
    release.set()
    caller.join(5)


def test_what_is_cancelled_before_it_began_is_not_left_unawaited(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, entered, release, posted = LoopThread(), threading.Event(), threading.Event(), threading.Event()
    _, own = loop.run(here())
    post = own.call_soon_threadsafe

    def note(*args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = post(*args, **kwargs)
        posted.set()
        return handle

    async def block() -> None:
        entered.set()
        assert release.wait(10)

    def wait() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run(late)

    callers = [threading.Thread(target=loop.run, args=(block(),)), threading.Thread(target=wait)]
    callers[0].start()
    assert entered.wait(5)
    monkeypatch.setattr(own, "call_soon_threadsafe", note)
    late = here()
    callers[1].start()
    assert posted.wait(5)
    loop.cancel_all()
    release.set()
    for caller in callers:
        caller.join(5)
    assert inspect.getcoroutinestate(late) == inspect.CORO_CLOSED
    loop.close(1.0)


def test_threads_whose_first_calls_race_share_one_loop() -> None:
    loop, start = LoopThread(), threading.Barrier(20)
    seen: list[object] = []

    def call() -> None:
        start.wait(10)
        seen.append(loop.run(here()))

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 20
    assert len(set(seen)) == 1
    loop.close(1.0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_closes_says_nothing_to_the_parents_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = LoopThread()
    _, own = loop.run(here())
    with monkeypatch.context() as patch:
        patch.setattr(own, "call_soon_threadsafe", told := Mock())
        child = os.fork()
        if child == 0:
            status = 1
            try:
                loop.close(1.0)
                status = 2 if told.called else 0
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    loop.close(1.0)
