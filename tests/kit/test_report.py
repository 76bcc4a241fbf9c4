"""The reports say the same of one verdict, to people and to programs, and nothing in it can harm either."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from support.verdicts import BOLD, MODEST, NASTY, verdict

from eventpact_contracts.checking.outcomes import Outcome, Verdict
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.laws import LAWS
from eventpact_contracts.reports import badge, document, exit_code, headline, page
from eventpact_contracts.reports.terminal import Progress, Style, explain, matrix, reasons, violations

GOOD = verdict("shop.events.ShopDispatcher", MODEST, G2=Outcome.ABSENT, G3=Outcome.ABSENT)
BAD = verdict("shop.queue.QueueDispatcher", BOLD, R1=Outcome.VIOLATED, L4=Outcome.VIOLATED, G4=Outcome.UNCLAIMED)
UNABLE = verdict("shop.remote.RemoteDispatcher", None, message="no broker at 127.0.0.1", G3=Outcome.COULD_NOT_RUN)

STORY = Trace(
    entries=(
        Entry(kind=Kind.DISPATCHED, time=1.0, caller="caller 1", event="id-1", event_type="Placed"),
        Entry(kind=Kind.ACCEPTED, time=1.001, caller="caller 1", event="id-1"),
        Entry(kind=Kind.STARTED, time=1.002, event="id-1", handler="Placed.first", attempt=1),
        Entry(kind=Kind.DISPATCHED, time=1.003, caller="Placed.first", event="id-2", event_type="Shipped"),
        Entry(kind=Kind.REFUSED, time=1.004, caller="Placed.first", event="id-2", exception=("DispatchError",)),
        Entry(kind=Kind.FAILED, time=1.005, event="id-1", handler="Placed.first", attempt=1, exception=("ValueError",)),
        Entry(kind=Kind.REPORTED, time=1.006, event="id-1", handler="Placed.first", attempt=1),
        Entry(kind=Kind.CLOSING, time=1.007, caller="main", timeout=5.0),
        Entry(kind=Kind.CRASHED, time=1.008, note="worker 1 was killed"),
        Entry(kind=Kind.OVERDUE, time=6.008, timeout=5.0, note="it never closed"),
    ),
    subscriptions=(("Placed", "Placed.first"), ("Placed", "Placed.second")),
)


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := given.get(name))]
        if anchor := given.get("id"):
            assert anchor not in self.anchors, "an id is given once"
            self.anchors.add(anchor)
        if tag not in ("meta", "link", "br", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words += data


def lines_of(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


class TestExitCode:
    @pytest.mark.parametrize(
        ("verdicts", "code"),
        [([GOOD], 0), ([GOOD, BAD], 1), ([UNABLE], 2), ([BAD, UNABLE], 1), ([GOOD, UNABLE], 2), ([], 2)],
    )
    def test_a_violation_outweighs_what_could_not_run(self, verdicts: Sequence[Verdict], code: int) -> None:
        assert exit_code(verdicts) == code


class TestHeadline:
    def test_it_says_how_many_laws_were_checked_and_who_conforms(self) -> None:
        assert headline([GOOD]) == f"{len(LAWS)} laws checked, the dispatcher conforms"
        assert headline([GOOD, GOOD]) == f"{len(LAWS)} laws checked, both dispatchers conform"
        assert headline([GOOD] * 3) == f"{len(LAWS)} laws checked, all 3 dispatchers conform"

    def test_it_counts_what_is_wrong(self) -> None:
        assert headline([BAD]) == "2 laws violated"
        assert headline([BAD, UNABLE]) == "2 laws violated, 1 could not run"
        assert headline([UNABLE]) == "1 law could not run"
        assert headline([verdict(R1=Outcome.VIOLATED)]) == "1 law violated"
        assert headline([]) == "nothing was checked"

    def test_a_part_of_the_laws_is_not_called_conforming(self) -> None:
        part = Verdict("1.0", "x", MODEST, GOOD.results[:3], 1.0)
        assert headline([part]) == f"3 of {len(LAWS)} laws checked, none violated"
        assert "#2e7d32" in badge([GOOD])
        assert "#2e7d32" not in badge([part])


class TestMatrix:
    def test_laws_are_rows_and_dispatchers_are_columns(self) -> None:
        text = matrix([GOOD, BAD, UNABLE])
        assert lines_of(text, "eventpact contract 1.0", "ShopDispatcher", "QueueDispatcher", "RemoteDispatcher")
        for law in LAWS:
            [line] = lines_of(text, f"  {law.id} {law.title} ")
            assert [len(part) > 0 for part in re.split(r"[✓✗○~!]", line)] == [True] * 4
        assert lines_of(text, "R1 delivered", "✓ upheld (231 in 100)", "✗ violated (231 in 100)")
        assert lines_of(text, "G3", "○ absent, as declared", "! could not run")
        assert lines_of(text, "G4", "~ unclaimed")

    def test_it_shows_what_each_dispatcher_declares(self) -> None:
        text = matrix([GOOD, BAD, UNABLE])
        assert re.search(r"retries +0 +3 +\?", text)
        assert re.search(r"delivery +at most once +at least once +\?", text)

    def test_columns_line_up(self) -> None:
        rows = [line for line in matrix([GOOD, BAD]).splitlines() if re.match(r"  [A-Z]\d", line)]
        assert len({re.search(r"[✓✗○~!]", line).start() for line in rows}) == 1  # type: ignore[union-attr]

    def test_two_of_one_name_are_told_apart(self) -> None:
        text = matrix([verdict("one.Dispatcher"), verdict("other.Dispatcher")])
        assert lines_of(text, "one.Dispatcher", "other.Dispatcher")

    def test_there_is_colour_only_where_it_was_asked_for(self) -> None:
        assert "\x1b[" not in matrix([BAD])
        assert "\x1b[1;31m✗ violated" in matrix([BAD], Style(colour=True))

    def test_a_stream_that_knows_only_ascii_gets_ascii(self) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        stream.write(matrix([GOOD, BAD, UNABLE], Style(stream)) + violations([BAD], Style(stream)))
        stream.flush()

    def test_nothing_that_a_dispatcher_says_reaches_the_terminal_as_a_command(self) -> None:
        nasty = [verdict(NASTY, message=NASTY, R1=Outcome.VIOLATED, R2=Outcome.COULD_NOT_RUN)]
        text = matrix(nasty) + violations(nasty) + reasons(nasty)
        assert "\x1b" not in text
        text.encode("utf-8")


class TestStyle:
    @pytest.mark.parametrize(
        ("environment", "coloured"),
        [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
    )
    def test_the_environment_is_respected(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
    ) -> None:
        for name in ("FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert ("\x1b[" in Style(io.StringIO()).bold("words")) is coloured


class TestExplanation:
    def test_a_violation_teaches(self) -> None:
        [result] = [result for result in BAD.results if result.law_id == "R1"]
        [law] = [law for law in LAWS if law.id == "R1"]
        text = explain("QueueDispatcher", result)
        assert "QueueDispatcher violates R1 delivered" in text
        assert law.promise.partition(" ")[2].replace("`", "")[:40] in " ".join(text.split())
        assert "event 1 was accepted, and Second never received it" in text
        assert all(cause in text for cause in law.causes)
        assert law.rogue in text
        assert "eventpact verify shop.events:ShopDispatcher --law R1 --seed 7" in text

    def test_each_violation_is_told_and_each_reason_once(self) -> None:
        told = violations([GOOD, BAD, UNABLE])
        assert told.count(" violates ") == 2
        unable = verdict(message="no broker", R1=Outcome.COULD_NOT_RUN, R2=Outcome.COULD_NOT_RUN)
        assert reasons([GOOD, BAD]) == ""
        assert reasons([unable]).count("no broker") == 1
        assert "R1, R2 could not run" in reasons([unable])

    def test_a_law_that_is_upheld_with_a_reservation_says_which_everywhere(self) -> None:
        reservation = "only closing made it refuse"
        results = tuple(replace(r, detail=reservation if r.law_id == "A5" else r.detail) for r in GOOD.results)
        reserved = [replace(GOOD, results=results)]
        assert "A5 is upheld, but\n  only closing made it refuse" in reasons(reserved)
        assert reasons(reserved).count(reservation) == page(reserved).count(reservation) == 1
        assert [row["detail"] for row in json.loads(document(reserved))["dispatchers"][0]["laws"]].count(
            reservation
        ) == 1


class TestProgress:
    def test_off_a_terminal_each_law_is_one_line(self) -> None:
        stream = io.StringIO()
        progress = Progress(stream, 2)
        for result in GOOD.results[:2]:
            progress.starts("shop", result.law_id, result.title)
            progress.ends("shop", result)
        first, second = stream.getvalue().splitlines()
        assert first.startswith("[1/2] shop: R1 delivered:")
        assert second.startswith("[2/2] shop: R2 nowhere else:")

    def test_on_a_terminal_one_line_changes_and_vanishes(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        progress = Progress(stream, 1)
        progress.starts("shop", "R1", "delivered")
        assert "\n" not in stream.getvalue()
        assert "[1/1] shop: R1 delivered" in stream.getvalue()
        progress.ends("shop", GOOD.results[0])
        assert stream.getvalue().endswith("\r\x1b[K")


class TestDocument:
    def test_it_holds_what_the_contract_asks_of_it(self) -> None:
        data = json.loads(document([GOOD, BAD, UNABLE]))
        assert data["contract_version"] == "1.0"
        assert data["exit_code"] == 1
        good, bad, unable = data["dispatchers"]
        assert good["dispatcher"] == "shop.events.ShopDispatcher"
        assert good["guarantees"] == {
            "blocks_caller": True,
            "retries": 0,
            "delivery": "at_most_once",
            "ordering": "fifo",
        }
        assert [row["id"] for row in good["laws"]] == [law.id for law in LAWS]
        assert (good["exit_code"], bad["exit_code"], unable["exit_code"]) == (0, 1, 2)
        assert unable["guarantees"] is None
        row = bad["laws"][0]
        assert (row["title"], row["outcome"], row["examples"], row["observations"]) == (
            "delivered",
            "violated",
            100,
            231,
        )

    def test_a_violation_can_be_read_back_with_its_trace(self) -> None:
        data = json.loads(document([verdict(trace=STORY, R1=Outcome.VIOLATED)]))
        assert Trace.from_dict(data["dispatchers"][0]["laws"][0]["violation"]["trace"]) == STORY

    def test_half_a_surrogate_pair_does_not_break_it(self) -> None:
        text = document([verdict(message=NASTY, R1=Outcome.VIOLATED)])
        json.loads(text.encode("utf-8"))


class TestPage:
    def test_it_is_whole_without_anything_from_elsewhere(self) -> None:
        text = page([GOOD, BAD, UNABLE])
        found = Page(text)
        assert "script" not in found.tags
        assert [link for link in found.links if not link.startswith("#")] == []
        assert "url(" not in text
        assert "@import" not in text

    def test_it_shows_each_law_each_dispatcher_and_what_they_declare(self) -> None:
        words = Page(page([GOOD, BAD, UNABLE])).words
        for law in LAWS:
            assert f"{law.id} {law.title}" in words
        for wanted in ("ShopDispatcher", "shop.queue.QueueDispatcher", "at least once", "2 laws violated", "no broker"):
            assert wanted in words

    def test_a_violation_is_linked_from_the_matrix(self) -> None:
        found = Page(page([GOOD, BAD]))
        assert len(found.links) == 2
        assert {link[1:] for link in found.links} <= found.anchors

    def test_a_violation_is_drawn_as_a_sequence(self) -> None:
        found = Page(page([verdict(trace=STORY, R1=Outcome.VIOLATED)]))
        assert "svg" in found.tags
        for wanted in (
            "caller 1",
            "dispatch Placed e1",
            "refused e2: DispatchError",
            "Placed.second",
            "e1 failed: ValueError",
            "failure sink",
            "aclose(5 s)",
            "crashed: worker 1 was killed",
            "waited 5 s in vain: it never closed",
        ):
            assert wanted in found.words

    def test_a_long_trace_keeps_its_beginning_and_its_end(self) -> None:
        steps = tuple(
            Entry(kind=Kind.DISPATCHED, time=n, caller="c", event=f"id-{n}", event_type="T") for n in range(500)
        )
        words = Page(page([verdict(trace=Trace(steps), R1=Outcome.VIOLATED)])).words
        assert "dispatch T e1" in words
        assert "dispatch T e500" in words
        assert "420 more, left out here" in words

    def test_every_kind_of_entry_can_be_drawn(self) -> None:
        steps = tuple(Entry(kind=kind, event="id-1", handler="T.h", caller="c", note=NASTY) for kind in Kind)
        text = page([verdict(trace=Trace(steps), R1=Outcome.VIOLATED)])
        svg = text[text.index("<svg") : text.index("</svg>") + 6]
        assert len(ElementTree.fromstring(svg).findall(".//{*}text")) >= len(Kind)

    def test_what_a_dispatcher_says_is_never_markup(self) -> None:
        text = page([verdict(NASTY, message=NASTY, trace=STORY, R1=Outcome.VIOLATED, R2=Outcome.COULD_NOT_RUN)])
        found = Page(text)
        assert "script" not in found.tags
        assert '<script>alert("1")</script>' in found.words
        text.encode("utf-8")


class TestBadge:
    @pytest.mark.parametrize(
        ("verdicts", "colour"), [([GOOD], "#2e7d32"), ([GOOD, BAD], "#c62828"), ([UNABLE], "#8a6100"), ([], "#8a6100")]
    )
    def test_its_colour_says_the_outcome_and_its_words_too(self, verdicts: Sequence[Verdict], colour: str) -> None:
        svg = badge(verdicts)
        title = ElementTree.fromstring(svg).findtext("{*}title")
        assert colour in svg
        assert title is not None
        assert title.endswith(headline(verdicts))

    def test_it_is_wide_enough_for_its_words(self) -> None:
        root = ElementTree.fromstring(badge([GOOD]))
        for text in root.findall(".//{*}text"):
            assert float(text.attrib["x"]) + float(text.attrib["textLength"]) < float(root.attrib["width"])
