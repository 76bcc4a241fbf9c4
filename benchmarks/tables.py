"""The tables of the figures, in Markdown, from what a run left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from timing import nice, ratio

PEERS = ("pyee", "blinker", "pluggy", "lato")

Result = Mapping[str, Any]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    columns = list(header)
    lines = (f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *map(list, rows)))
    return "\n".join(lines)


def _spread(case: Result) -> str:
    return f"{case['ratio_quartile_low']:.2f} to {case['ratio_quartile_high']:.2f}"


_SIGNS = {"upheld": "✓", "absent, as declared": "○", "unclaimed": "~", "not applicable": "·"}


def laws(verdicts: Result) -> str:
    """The laws by chapter, with the sign of each dispatcher's outcomes, in the order of the laws."""
    each = verdicts["dispatchers"]
    chapters: dict[str, list[tuple[Result, ...]]] = {}
    for rows in zip(*(verdict["laws"] for verdict in each), strict=True):
        chapters.setdefault(rows[0]["id"][0], []).append(rows)
    return markdown(
        ["laws", *(verdict["dispatcher"] for verdict in each)],
        (
            [
                ", ".join(f"**{rows[0]['id']}** {rows[0]['title']}" for rows in chapter),
                *(
                    "".join(_SIGNS.get(row["outcome"], row["outcome"]) for row in column)
                    for column in zip(*chapter, strict=True)
                ),
            ]
            for chapter in chapters.values()
        ),
    )


def trade_offs(verdicts: Result, api: Result, retries: int) -> str:
    """What each dispatcher gives and takes: what the suite saw of its guarantees, and what the API took with it."""
    declared = {verdict["dispatcher"]: verdict["guarantees"] for verdict in verdicts["dispatchers"]}
    names = ("sync", "asyncio", "celery")
    delays = sorted(api["delays_ms"], key=int)

    def each(label: str, cell: Callable[[str], str]) -> list[str]:
        return [label, *map(cell, names)]

    def response(name: str) -> str:
        case = name if name == "sync" else f"{name}, outbox"  # as by default
        medians = (api["delays_ms"][delay][case]["response_ms"]["median"] for delay in delays)
        return ", ".join(f"{median:.0f}" for median in medians) + " ms"

    def survives(name: str) -> str:
        alone = declared[name]["delivery"].replace("_", " ")
        on_rabbitmq = "; on RabbitMQ at least once" if name == "celery" else ""
        return f"{alone}{on_rabbitmq}; with the outbox {declared['outbox']['delivery'].replace('_', ' ')}"

    return markdown(
        ["", *(f"`{name}`" for name in names)],
        [
            each("the caller waits for the handlers (G1)", lambda name: _yes(declared[name]["blocks_caller"])),
            each(f"a sign-up's response, at a mail server that takes {', '.join(delays)} ms", response),
            each(
                "a failed delivery is tried again (G2)",
                lambda name: (
                    f"yes, {retries} times by default, after waits that grow"
                    if declared[name]["retries"]
                    else "no: it is reported at once"
                ),
            ),
            each("an accepted event, when a process is killed (G3)", survives),
            each("one handler sees events in order (G4)", lambda name: _yes(declared[name]["ordering"] == "fifo")),
            ["needs", "nothing", "an event loop", "a broker and a worker process"],
            [
                "debugging",
                "one stack trace, from `dispatch` to the handler",
                "a task's own stack trace",
                "another process, whose log names the event, the handler and the attempt of what failed",
            ],
        ],
    )


def under_fire(matrix: Result) -> str:
    """What the faults did to each way of carrying events."""
    rows = []
    for column in dict.fromkeys(cell["column"] for cell in matrix["cells"]):
        cells = [cell for cell in matrix["cells"] if cell["column"] == column and not cell.get("not_run")]
        recoveries = [cell["recovery"] for cell in cells if cell["promised"] and cell.get("recovery") is not None]
        rows.append(
            [
                column,
                _yes(any(cell["promised"] for cell in cells)),
                str(len(cells)),
                str(sum(cell.get("kills", 0) for cell in cells)),
                *(
                    str(sum(cell["balance"][key] for cell in cells))
                    for key in ("accepted", "in_doubt", "lost", "failed", "duplicated")
                ),
                f"{max(recoveries):.0f} s" if recoveries else "",
            ]
        )
    header = ("", "promises at least once", "faults", "kills", "accepted", "in doubt", "lost", "kept as failed")
    return markdown([*header, "doubled", "longest recovery"], rows)


def longest_dispatch(matrix: Result) -> str:
    """How long publishing took at most while its broker was down, frozen or cut off."""
    faults = [fault for fault in dict.fromkeys(cell["fault"] for cell in matrix["cells"]) if _is_of_broker(fault)]
    engines = ("celery-redis", "celery-rabbitmq")

    def longest(fault: str, engine: str) -> str:
        took = [
            cell["longest_dispatch"]["CeleryEventDispatcher"]
            for cell in matrix["cells"]
            if cell["fault"] == fault
            and cell["column"].removesuffix("+outbox") == engine
            and "CeleryEventDispatcher" in (cell.get("longest_dispatch") or {})
        ]
        return f"{max(took):.2f} s" if took else "not run"

    return markdown(
        ["longest `dispatch`", *engines], ([fault, *(longest(fault, engine) for engine in engines)] for fault in faults)
    )


def _is_of_broker(fault: str) -> bool:
    return fault.startswith(("broker", "proxy"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def settings(fields: Mapping[str, Any]) -> str:
    """Every setting, with its default."""
    return markdown(
        ["`EVENTPACT_…`", "default", "what it is"],
        (
            [f"`{name.upper()}`", _default(field.default), (field.description or "").replace("|", "or")]
            for name, field in fields.items()
        ),
    )


def _default(value: object) -> str:
    if value is None:
        return ""
    return (
        f"`{value.total_seconds():.12g}`"  # of six digits, 30 days would be 2.592e+06
        if isinstance(value, timedelta)
        else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    )


def compared(title: str, *results: Result) -> str:
    """Cases by their ratio to the base of their result, which is the first row of it."""
    rows = []
    for result in results:
        for name, case in sorted(result["cases"].items(), key=lambda item: item[1]["ratio"]):
            rows.append([name, nice(case["nanoseconds"]), f"{case['ratio']:.2f}", _spread(case)])
    return markdown([title, "median", "ratio", "quartiles"], rows)


def publishing(title: str, result: Result) -> str:
    """Cases by their ratio to the base, and what of it is work of the process that publishes."""
    base, rows = result["base"], []
    for name, case in sorted(result["cases"].items(), key=lambda item: item[1]["ratio"]):
        worked = _by_round(result["cases"], name, base, "processor_by_round")
        rows.append(
            [
                name,
                *(nice(case["nanoseconds"]), f"{case['ratio']:.2f}", _spread(case)),
                *(nice(case["processor_nanoseconds"]), f"{worked['ratio']:.2f}", _spread(worked)),
            ]
        )
    return markdown([title, "median", "ratio", "quartiles", "own processor time", "ratio", "quartiles"], rows)


def end_to_end(result: Result) -> str:
    """Latency and throughput up to the handler."""
    return markdown(
        ["", "latency, median", "95th", "99th", "events a second", "quartiles"],
        (
            [
                name,
                *(f"{case['latency_ms'][key]:.2f} ms" for key in ("median", "p95", "p99")),
                f"{case['events_a_second']['median']:,}",
                f"{case['events_a_second']['low']:,} to {case['events_a_second']['high']:,}",
            ]
            for name, case in result["cases"].items()
        ),
    )


def api(result: Result) -> str:
    """Response times and throughput of ``POST /accounts``."""
    return markdown(
        [
            "mail server takes",
            "",
            "median",
            "95th",
            "99th",
            "ratio of medians",
            "quartiles",
            "requests a second",
            "refused",
            "not mailed",
        ],
        (
            [
                f"{delay} ms",
                name,
                *(f"{case['response_ms'][key]:.1f} ms" for key in ("median", "p95", "p99")),
                f"{case['ratio']:.2f}",
                _spread(case),
                f"{case['requests_a_second']['median']:,}",
                _count(case["refused"]),
                _count(case["unsent"]),
            ]
            for delay, cases in result["delays_ms"].items()
            for name, case in cases.items()
        ),
    )


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def contract(verdicts: Result) -> str:
    """What a verdict of the contract suite costs."""
    rows = []
    for verdict in verdicts["dispatchers"]:
        examples = sum(law["examples"] for law in verdict["laws"])
        (schedules,) = (law for law in verdict["laws"] if law["id"] == "C3")
        rows.append(
            [
                verdict["dispatcher"],
                f"{verdict['seconds']:.0f} s",
                f"{examples:,}",
                f"{examples / verdict['seconds']:.0f}",
                f"{schedules['examples']}",
                f"{schedules['examples'] / schedules['seconds']:.0f}",
            ]
        )
    return markdown(
        ["", "a verdict takes", "examples", "examples a second", "schedules (C3)", "schedules a second"], rows
    )


def handlers(result: Result) -> str:
    """What one event costs, by how many handlers it has."""
    parts = {1: "blocking", 10: "blocking_10_handlers", 100: "blocking_100_handlers"}
    return markdown(
        ["one event, so many plain handlers", *map(str, parts)],
        (
            [
                name,
                *(f"{nice(case['nanoseconds'])} ({case['ratio']:.2f})" for case in _of(name, result, parts.values())),
            ]
            for name in result["blocking"]["cases"]
        ),
    )


def _of(name: str, result: Result, parts: Iterable[str]) -> list[Result]:
    return [result[part]["cases"][name] for part in parts]


def scale(result: Result) -> str:
    """What one event costs, by how many are accepted in a row."""
    rows = result["nanoseconds_per_event_of_so_many"]
    counts = next(iter(rows.values()))
    return markdown(
        ["an event, of so many in a row", *(f"{int(count):,}" for count in counts)],
        ([name, *map(nice, row.values())] for name, row in rows.items()),
    )


def memory(result: Result) -> str:
    """What a pending event holds."""
    held = result["bytes_per_pending_event"]
    return markdown(["", "bytes a pending event"], ([name, f"{size:,}"] for name, size in held.items()))


def aims(results: Mapping[str, Result]) -> str:
    """What was aimed at, and what was reached."""
    blocking, tasks = results["in_process"]["blocking"]["cases"], results["in_process"]["tasks"]["cases"]
    fastest = min(PEERS, key=lambda name: blocking[name]["ratio"])
    rows = [
        _aim("sync: a bare method call", 4.0, blocking["eventpact sync"]),
        _aim(f"sync: the fastest peer ({fastest})", 0.2, _by_round(blocking, "eventpact sync", fastest)),
        _aim("asyncio: create_task with a reference", 1.3, tasks["eventpact asyncio"]),
    ]
    for broker in ("Redis", "RabbitMQ"):
        cases = results[f"publishing_{broker.lower()}"]["publishing"]["cases"]
        for other, most in {"Celery send_task, stock": 0.6, "dramatiq": 1.5}.items():
            for kind, of in {"": "by_round", ", own processor time": "processor_by_round"}.items():
                found = _by_round(cases, "eventpact celery", other, of)
                rows.append(_aim(f"celery on {broker}: {other}{kind}", most, found))
    for delay, cases in results["api"]["delays_ms"].items():
        rows.append(_aim(f"API with asyncio: BackgroundTasks, mail takes {delay} ms", 1.1, cases["asyncio"]))
    return markdown(["what it is compared with", "at most", "measured", "quartiles", ""], rows)


def _by_round(cases: Result, ours: str, other: str, kind: str = "by_round") -> dict[str, float]:
    return ratio(cases[ours][kind], cases[other][kind])


def _aim(name: str, most: float, case: Result) -> list[str]:
    met = "met" if case["ratio"] <= most else "**missed**"
    return [name, f"{most:.2f}", f"{case['ratio']:.2f}", _spread(case), met]


def machine(results: Mapping[str, Result]) -> str:
    """Where and with what the figures were made."""
    rows = []
    for name, result in results.items():
        made = result["machine"]
        versions = ", ".join(f"{package} {number}" for package, number in made["packages"].items())
        where = f"{made['processor']}, {made['cores']} cores, {made['system']}"
        rows.append(
            [f"`{name}.json`", made["date"], f"{made['load_average']}", f"{where}, Python {made['python']}", versions]
        )
    return markdown(["figures", "date", "load before", "machine", "versions"], rows)
