"""The suite tested with dispatchers that are known to be bad: each is convicted by its law, and by no unrelated one.

Each is brought before its own law, in the night before a few others, too, that are drawn.
``python -m eventpact_contracts.rogues --seeds 20`` brings each before all laws.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from support.seeds import SEED

from eventpact_contracts import rogues
from eventpact_contracts.checking.check import check
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.laws import LAWS
from eventpact_contracts.rogues import ROGUES, Rogue
from eventpact_contracts.rogues.__main__ import Trial, main, rendered, tried, without_rogue
from eventpact_contracts.rogues.sound.in_a_thread import InAThread
from eventpact_contracts.rogues.sound.pass_through import Journaling, LoopPassThrough, PassThrough, Retrying

pytestmark = pytest.mark.slow

OTHERS = int(os.environ.get("EVENTPACT_TEST_ROGUE_LAWS", "0"))

NAMED = {law.rogue for law in LAWS}
"""Those that reports explain a law with, and that show at once."""

TRIES = 3
"""Seeds with one of which another rogue has to show: some lose a race of two threads in most runs, and not in each."""

SHOWN_BY_OTHERS = {"beginning_in_order", "presumptuous", "reconnecting", "sparing_an_inbox", "unhurried"}
"""Those that scenarios of other laws show, so that they have to be brought before all laws: in the night."""

DEFECTS = {
    "a nested dispatch overwrites the queue and loses a pending event",
    "the first failing handler keeps the next from running",
    "handlers run although the sender's request failed",
    "a sync handler's error reaches the caller, an async one's does not",
    "a mutated event is seen mutated by later handlers",
    "tasks are not referenced and vanish in a garbage collection",
    "shutdown drops what was accepted, silently",
    "dispatch from a worker thread raises for want of a loop",
    "a failed event is acknowledged in a `finally`",
    "a misconfigured backend is replaced by a silent no-op",
    "retry behaves differently in the in-process engine",
    "a message acknowledged before the handler ran, or when its worker died",
}
"""Real defects of well-known event buses."""


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest) -> Iterator[list[Trial]]:
    """What became of each rogue; the matrix is printed at the end."""
    held: list[Trial] = []
    yield held
    if held:
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"\n\nlaws by rogues, seed {SEED}\n\n{rendered(held)}")


# A rogue leaves behind what good dispatchers clear away: that is what some of them are for.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    "rogue",
    [pytest.param(rogue, marks=pytest.mark.night if rogue.name in SHOWN_BY_OTHERS else ()) for rogue in ROGUES],
    ids=str,
)
def test_is_convicted_by_its_law_and_by_no_unrelated_one(rogue: Rogue, trials: list[Trial]) -> None:
    others = len(LAWS) if rogue.name in SHOWN_BY_OTHERS else OTHERS
    for seed in range(SEED, SEED + (1 if rogue.name in NAMED else TRIES)):
        trial = tried(rogue, seed, others=others)
        trials.append(trial)
        if trial.escaped is None or trial.unrelated:
            break
    assert trial.escaped is None
    assert trial.unrelated == []


@pytest.mark.parametrize("good", [PassThrough, LoopPassThrough, Retrying, Journaling, InAThread])
def test_what_the_rogues_are_made_of_is_convicted_by_no_law(good: type[PassThrough | InAThread]) -> None:
    control = Rogue("control", good, good.guarantees, "", "", needs_loop=issubclass(good, LoopPassThrough))
    results = [check(law, control, examples=5, seed=SEED) for law in LAWS if not law.processes]
    assert [result.detail for result in results if result.outcome in (Outcome.VIOLATED, Outcome.COULD_NOT_RUN)] == []


def test_every_law_has_a_rogue() -> None:
    assert without_rogue() == []


def test_a_law_whose_rogues_are_taken_away_is_missed() -> None:
    assert without_rogue([rogue for rogue in ROGUES if rogue.convicted_by != "C3"]) == ["C3"]


def test_every_defect_of_well_known_event_buses_has_a_rogue() -> None:
    assert {rogue.defect for rogue in ROGUES} - {""} == DEFECTS


def test_every_guarantee_has_rogues_that_promise_more_than_they_keep_and_others() -> None:
    for law in ("G1", "G2", "G3", "G4"):
        assert len([rogue for rogue in ROGUES if rogue.convicted_by == law]) >= 2


def test_names_are_unique_and_name_a_rogue_to_verify() -> None:
    assert len({rogue.name for rogue in ROGUES}) == len(ROGUES)
    assert all(getattr(rogues, rogue.name) is rogue for rogue in ROGUES)
    with pytest.raises(AttributeError, match="there is no rogue saintly"):
        rogues.saintly  # noqa: B018


def test_the_rogue_that_a_law_is_explained_with_is_one_that_it_convicts() -> None:
    convicted_by = {rogue.name: rogue.convicted_by for rogue in ROGUES}
    assert {law.id: convicted_by.get(law.rogue) for law in LAWS} == {law.id: law.id for law in LAWS}


def test_a_law_beside_is_another_one_and_has_a_reason() -> None:
    known = {law.id for law in LAWS}
    for rogue in ROGUES:
        assert rogue.also.keys() <= known - {rogue.convicted_by}
        assert all(rogue.also.values())


def test_the_command_prints_the_matrix_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chatty", "--own"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^chatty +X$", printed, re.MULTILINE)
    assert "1 rogues, seeds 1 to 1: 0 not as they should be" in printed


def test_a_good_dispatcher_among_the_rogues_is_noticed() -> None:
    good = Rogue("good", rogues.chatty.factory, rogues.chatty.guarantees, "R1", "never received it")
    trial = tried(good, SEED, others=0)
    assert trial.escaped is not None
    assert "R1 says upheld" in trial.escaped


def test_a_conviction_by_an_unrelated_law_is_noticed() -> None:
    wrong = Rogue("wrong", rogues.chatty.factory, rogues.chatty.guarantees, "R1", "")
    trial = Trial(wrong, SEED, tried(rogues.chatty, SEED, others=0).results)
    assert any("R7 convicts it too" in said for said in trial.unrelated)
