"""The reports say the same of one verdict, to people and to programs, and nothing in it can harm either."""

from __future__ import annotations

import io
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from importlib.resources import files
from typing import ClassVar
from xml.etree import ElementTree

import jsonschema
import pytest
from support.verdicts import BOLD, MODEST, NASTY, verdict

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict, with_known
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.laws import LAWS
from eventpact_contracts.reports.advice import advice
from eventpact_contracts.reports.badge import badge
from eventpact_contracts.reports.document import document, result_as_json, result_from_json
from eventpact_contracts.reports.junit import junit
from eventpact_contracts.reports.markdown import markdown
from eventpact_contracts.reports.page import page
from eventpact_contracts.reports.summary import RunFacts, exit_code, headline
from eventpact_contracts.reports.terminal import Progress, Style, explain, matrix, reasons, violations

RUN = RunFacts(seed=7, examples=100, again="eventpact verify shop.events:ShopDispatcher --seed 7")

GOOD = verdict("shop.events.ShopDispatcher", MODEST, G2=Outcome.ABSENT, G3=Outcome.ABSENT)
BAD = verdict("shop.queue.QueueDispatcher", BOLD, R1=Outcome.VIOLATED, L4=Outcome.VIOLATED, G4=Outcome.UNCLAIMED)
UNABLE = verdict("shop.remote.RemoteDispatcher", None, message="no broker at 127.0.0.1", G3=Outcome.COULD_NOT_RUN)

ODD = {"R1": Outcome.VIOLATED, "G3": Outcome.COULD_NOT_RUN, "G4": Outcome.UNCLAIMED}

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
        part = Verdict("1.1", "x", MODEST, GOOD.results[:3], 1.0)
        assert headline([part]) == f"3 of {len(LAWS)} laws checked, none violated"
        assert "#2e7d32" in badge([GOOD], RUN)
        assert "#2e7d32" not in badge([part], RUN)


class TestMatrix:
    @pytest.fixture(autouse=True)
    def _wide_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")

    def test_it_fits_a_terminal_that_is_narrower(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        assert max(map(len, matrix([GOOD, BAD, UNABLE]).splitlines())) <= 80

    def test_laws_are_rows_and_dispatchers_are_columns(self) -> None:
        text = matrix([GOOD, BAD])
        assert lines_of(text, "eventpact contract 1.1", "ShopDispatcher", "QueueDispatcher")
        for law in LAWS:
            [line] = lines_of(text, f"  {law.id} {law.title} ")
            assert len(re.split(r"[✓✗○~!]", line)) == 3
        assert lines_of(text, "R1 delivered", "✓ upheld (231 in 100)", "✗ violated (231 in 100)")
        assert lines_of(text, "G3", "○ absent, as declared")
        assert lines_of(text, "G4", "~ unclaimed")
        assert lines_of(matrix([UNABLE]), "G3", "! could not run")

    @pytest.mark.parametrize("number", [3, 4, 7, 12])
    def test_many_dispatchers_side_by_side_fit_100_columns(self, number: int) -> None:
        verdicts = [verdict(f"a.very.long.path.to.{'Some' * n}Dispatcher", BOLD, **ODD) for n in range(number)]
        text = matrix(verdicts)
        assert max(map(len, text.splitlines())) <= 100
        [*rows] = lines_of(text, "  G4 ")
        assert sum(line.count("~") for line in rows) == number
        assert (len(rows) == 1) == (number <= 4), "four are side by side"
        assert lines_of(text, "✓ upheld", "✗ violated", "~ unclaimed")

    def test_laws_that_were_not_asked_for_are_not_selected(self) -> None:
        text = matrix([verdict(R2=Outcome.NOT_SELECTED)])
        assert lines_of(text, "R2 ", "- not selected")
        assert lines_of(text, "1 not selected")

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
        assert reasons(reserved).count(reservation) == page(reserved, RUN).count(reservation) == 1
        assert [row["detail"] for row in json.loads(document(reserved, RUN))["dispatchers"][0]["laws"]].count(
            reservation
        ) == 1

    def test_the_rogue_that_is_named_is_the_one_with_the_same_message(self) -> None:
        assert advice("C2", "event 1 was accepted, and first never received it").rogue.endswith(":overwriting")
        assert advice("C2", "dispatch raised RecursionError").rogue.endswith(":recursive")

    @pytest.mark.parametrize("name", ["overwriting", "eventpact_contracts.rogues:overwriting"])
    def test_no_rogue_is_named_to_itself(self, name: str) -> None:
        assert advice("C2", "event 1 was accepted, and first never received it", name).rogue == ""

    def test_no_rogue_is_named_where_none_or_several_have_the_message(self) -> None:
        assert advice("C2", "the cascade took too long").rogue == ""
        assert advice("I1", "the caller of dispatch got ValueError").rogue == ""
        assert advice("C1", "it was lost").rogue == "", "a word that is in every message says nothing"

    def test_a_violation_says_how_often_it_was_seen_again(self) -> None:
        [result] = [result for result in BAD.results if result.law_id == "R1"]
        assert "To see it again (it showed in 2 of 7 repeats):" in explain("x", replace(result, replays=(2, 7)))
        assert "To see it again:" in explain("x", result)


class TestKnownViolations:
    LISTED: ClassVar = {"R1": "issue 7", "R2": "issue 8"}

    def verdict(self, **outcomes: Outcome) -> Verdict:
        found = verdict(**outcomes)
        return replace(found, results=tuple(with_known(result, self.LISTED) for result in found.results))

    def test_exactly_the_listed_violations_are_no_fault(self) -> None:
        known = self.verdict(R1=Outcome.VIOLATED, R2=Outcome.VIOLATED)
        assert known.exit_code == 0
        assert headline([known]) == f"{len(LAWS)} laws checked, 2 known violations and no other"
        assert "R1 is violated, which is known" in reasons([known])
        assert "issue 7" in reasons([known])

    def test_another_violation_is_a_fault(self) -> None:
        assert self.verdict(R1=Outcome.VIOLATED, R2=Outcome.VIOLATED, R3=Outcome.VIOLATED).exit_code == 1

    @pytest.mark.parametrize("holds", [Outcome.UPHELD, Outcome.ABSENT, Outcome.UNCLAIMED, Outcome.NOT_APPLICABLE])
    def test_a_listed_law_that_holds_is_a_fault(self, holds: Outcome) -> None:
        stale = self.verdict(R1=holds, R2=Outcome.VIOLATED)
        assert stale.exit_code == 1
        assert headline([stale]) == "1 law listed as known, but not violated"
        assert "take it off the list" in reasons([stale])

    @pytest.mark.parametrize(("outcome", "code"), [(Outcome.COULD_NOT_RUN, 2), (Outcome.NOT_SELECTED, 0)])
    def test_a_listed_law_that_was_not_judged_is_neither(self, outcome: Outcome, code: int) -> None:
        assert self.verdict(R1=outcome, R2=outcome).exit_code == code


class TestProgress:
    def test_off_a_terminal_each_part_is_one_line(self) -> None:
        stream = io.StringIO()
        progress = Progress(stream)
        progress.at("shop", "quiet", 0, 2)
        progress.at("shop", "crashes", 1, 2)
        progress.end()
        assert stream.getvalue() == "[1/2] shop: quiet\n[2/2] shop: crashes\n"

    def test_on_a_terminal_one_line_changes_and_vanishes(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        progress = Progress(stream)
        progress.at("shop", "quiet", 0, 1)
        assert "\n" not in stream.getvalue()
        assert "[1/1] shop: quiet" in stream.getvalue()
        progress.end()
        assert stream.getvalue().endswith("\r\x1b[K")


EACH = verdict("each.Outcome", BOLD, **{law.id: outcome for law, outcome in zip(LAWS, Outcome, strict=False)})
"""A verdict in which every outcome occurs."""


class TestJUnit:
    def test_each_law_is_a_case_and_each_dispatcher_a_suite(self) -> None:
        root = ElementTree.fromstring(junit([GOOD, BAD, UNABLE], RUN))
        good, bad, unable = root.findall("testsuite")
        assert [suite.get("name") for suite in (good, bad)] == [GOOD.dispatcher, BAD.dispatcher]
        assert [case.get("name") for case in good.findall("testcase")] == [f"{law.id} {law.title}" for law in LAWS]
        assert (good.get("failures"), bad.get("failures"), unable.get("errors")) == ("0", "2", "1")
        assert bad.find("properties/property[@name='seed']").get("value") == "7"  # type: ignore[union-attr]
        failure = bad.find("testcase/failure")
        assert failure is not None
        assert "never received it" in failure.get("message", "")
        assert "eventpact verify shop.events:ShopDispatcher --law R1" in (failure.text or "")

    def test_laws_that_are_no_pass_and_no_fault_are_skipped(self) -> None:
        suite = ElementTree.fromstring(junit([EACH], RUN)).find("testsuite")
        assert suite is not None
        skipped = [element.get("message", "") for element in suite.iter("skipped")]
        assert [text.partition(":")[0] for text in skipped] == ["not applicable", "not selected", "known"]

    def test_a_listed_law_that_holds_is_a_failure(self) -> None:
        stale = replace(GOOD, results=(with_known(GOOD.results[0], {"R1": "issue 7"}),))
        assert ElementTree.fromstring(junit([stale], RUN)).find(".//failure") is not None

    def test_nothing_that_a_dispatcher_says_breaks_it(self) -> None:
        nasty = [verdict(NASTY, message=f"{NASTY}\x00\ufffe", R1=Outcome.VIOLATED, R2=Outcome.COULD_NOT_RUN)]
        ElementTree.fromstring(junit(nasty, RUN).encode("utf-8"))


class TestMarkdown:
    def test_it_is_a_table_with_each_counterexample_in_a_fold(self) -> None:
        text = markdown([GOOD, BAD], RUN)
        assert "| law | ShopDispatcher | QueueDispatcher |" in text
        assert "| R1 delivered | ✓ upheld (231 in 100) | ✗ violated (231 in 100) |" in text
        assert text.count("<details>") == text.count("</details>") == 2
        assert "seed 7" in text
        widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
        assert widths == {4}

    def test_nothing_that_a_dispatcher_says_is_markup(self) -> None:
        nasty = verdict(f"a|b{NASTY}", message=f"{NASTY} ``` | <b>", trace=STORY, R1=Outcome.VIOLATED)
        text = markdown([nasty], RUN)
        assert "<script>" not in text
        assert {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")} == {3}
        text.encode("utf-8")


class TestDocument:
    @pytest.mark.parametrize(
        "verdicts",
        [[], [GOOD, BAD, UNABLE], [EACH], [replace(BAD, results=(replace(BAD.results[0], replays=(2, 7)),))]],
        ids=["nothing", "three", "every outcome", "replays"],
    )
    def test_it_keeps_its_published_schema(self, verdicts: Sequence[Verdict]) -> None:
        schema = json.loads(files("eventpact_contracts.reports").joinpath("verdict.schema.json").read_text("utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(json.loads(document(verdicts, RUN)), schema)

    def test_the_schema_refuses_a_document_that_lacks_something(self) -> None:
        schema = json.loads(files("eventpact_contracts.reports").joinpath("verdict.schema.json").read_text("utf-8"))
        for name in ("seed", "examples", "python", "kit", "platform", "time", "contract_version"):
            data = json.loads(document([GOOD], RUN))
            del data[name]
            with pytest.raises(jsonschema.ValidationError, match=name):
                jsonschema.validate(data, schema)

    @pytest.mark.parametrize("result", [*EACH.results, replace(BAD.results[0], replays=(1, 3), known="issue 7")])
    def test_a_result_comes_back_equal_from_another_process(self, result: LawResult) -> None:
        assert result_from_json(json.loads(json.dumps(result_as_json(result)))) == result

    def test_it_states_the_versions_and_the_seed(self) -> None:
        data = json.loads(document([replace(GOOD, module="pytest.thing")], RUN))
        assert (data["seed"], data["examples"], data["python"]) == (7, 100, platform.python_version())
        assert data["kit"] == version("eventpact")
        assert data["dispatchers"][0]["target"] == {"module": "pytest.thing", "version": version("pytest")}

    def test_it_holds_what_the_contract_asks_of_it(self) -> None:
        data = json.loads(document([GOOD, BAD, UNABLE], RUN))
        assert data["contract_version"] == "1.1"
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
        data = json.loads(document([verdict(trace=STORY, R1=Outcome.VIOLATED)], RUN))
        assert Trace.from_dict(data["dispatchers"][0]["laws"][0]["violation"]["trace"]) == STORY

    def test_half_a_surrogate_pair_does_not_break_it(self) -> None:
        text = document([verdict(message=NASTY, R1=Outcome.VIOLATED)], RUN)
        json.loads(text.encode("utf-8"))


class TestPage:
    def test_it_is_whole_without_anything_from_elsewhere(self) -> None:
        text = page([GOOD, BAD, UNABLE], RUN)
        found = Page(text)
        assert "script" not in found.tags
        assert [link for link in found.links if not link.startswith("#")] == []
        assert "url(" not in text
        assert "@import" not in text

    def test_it_shows_each_law_each_dispatcher_and_what_they_declare(self) -> None:
        words = Page(page([GOOD, BAD, UNABLE], RUN)).words
        for law in LAWS:
            assert f"{law.id} {law.title}" in words
        for wanted in ("ShopDispatcher", "shop.queue.QueueDispatcher", "at least once", "2 laws violated", "no broker"):
            assert wanted in words

    def test_a_violation_is_linked_from_the_matrix(self) -> None:
        found = Page(page([GOOD, BAD], RUN))
        assert len(found.links) == 2
        assert {link[1:] for link in found.links} <= found.anchors

    def test_a_violation_is_drawn_as_a_sequence(self) -> None:
        found = Page(page([verdict(trace=STORY, R1=Outcome.VIOLATED)], RUN))
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
        words = Page(page([verdict(trace=Trace(steps), R1=Outcome.VIOLATED)], RUN)).words
        assert "dispatch T e1" in words
        assert "dispatch T e500" in words
        assert "420 more, left out here" in words

    def test_every_kind_of_entry_can_be_drawn(self) -> None:
        steps = tuple(Entry(kind=kind, event="id-1", handler="T.h", caller="c", note=NASTY) for kind in Kind)
        text = page([verdict(trace=Trace(steps), R1=Outcome.VIOLATED)], RUN)
        svg = text[text.index("<svg") : text.index("</svg>") + 6]
        assert len(ElementTree.fromstring(svg).findall(".//{*}text")) >= len(Kind)

    def test_what_a_dispatcher_says_is_never_markup(self) -> None:
        text = page([verdict(NASTY, message=NASTY, trace=STORY, R1=Outcome.VIOLATED, R2=Outcome.COULD_NOT_RUN)], RUN)
        found = Page(text)
        assert "script" not in found.tags
        assert '<script>alert("1")</script>' in found.words
        text.encode("utf-8")


class TestBadge:
    @pytest.mark.parametrize(
        ("verdicts", "colour"), [([GOOD], "#2e7d32"), ([GOOD, BAD], "#c62828"), ([UNABLE], "#8a6100"), ([], "#8a6100")]
    )
    def test_its_colour_says_the_outcome_and_its_words_too(self, verdicts: Sequence[Verdict], colour: str) -> None:
        svg = badge(verdicts, RUN)
        title = ElementTree.fromstring(svg).findtext("{*}title")
        assert colour in svg
        assert title is not None
        assert title.endswith(headline(verdicts))

    def test_it_is_wide_enough_for_its_words(self) -> None:
        root = ElementTree.fromstring(badge([GOOD], RUN))
        for text in root.findall(".//{*}text"):
            assert float(text.attrib["x"]) + float(text.attrib["textLength"]) < float(root.attrib["width"])
