"""Draws the figures that a run left, as SVG: ``python benchmarks/plots.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from readme import digest, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
PLOTS: Final = {
    "in_process": ("in_process",),
    "publishing": ("publishing_redis", "publishing_rabbitmq"),
    "end_to_end": ("end_to_end",),
    "api": ("api",),
}
"""Each plot, and the figures that it is of."""

OURS, OTHERS, INK = "#0b7285", "#adb5bd", "#495057"


def _colour(name: str) -> str:
    ours = name.startswith(("eventpact", "sync", "asyncio", "celery"))
    return OURS if ours else OTHERS


def _bars(
    axes: Axes,
    title: str,
    values: dict[str, float],
    label: Callable[[float], str],
    *,
    log: bool = False,
    marks: Sequence[float] = (),
) -> None:
    """Bars with their values beside them and, where marks are given, a stroke for each."""
    names = list(values)
    axes.barh(names, list(values.values()), color=[_colour(name) for name in names], height=0.7)
    axes.scatter(marks, range(len(marks)), marker="|", s=80, color=INK)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    if log:
        axes.set_xscale("log")
    for position, value in enumerate(values.values()):
        mark = marks[position] if marks else value
        text = f"{value:.1f} | {label(mark)}" if marks else label(value)
        axes.annotate(text, (max(value, mark), position), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.35 if marks else 0.25)
    _plain(axes)
    axes.xaxis.set_visible(False)


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors=INK)


def _ratios(result: Any) -> dict[str, float]:
    cases = sorted(result["cases"].items(), key=lambda item: item[1]["ratio"])
    return {name: case["ratio"] for name, case in cases}


def _figure(width: float, height: float, columns: int, heights: Iterable[float] = (1,)) -> tuple[Figure, Any]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "eventpact", "font.family": "DejaVu Sans", "text.color": INK}
    from matplotlib import pyplot

    ratios = list(heights)
    return pyplot.subplots(
        len(ratios),
        columns,
        figsize=(width, height),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"height_ratios": ratios},
    )


def _in_process() -> Figure:
    result = load("in_process")
    figure, ((calls, tasks),) = _figure(9, 2.6, 2)
    times = "{:.3g}x".format
    _bars(calls, "Plain handler; bare call = 1 (log)", _ratios(result["blocking"]), times, log=True)
    _bars(tasks, "Task of a loop; bare task = 1 (log)", _ratios(result["tasks"]), times, log=True)
    return figure


def _publishing() -> Figure:
    figure, ((left, right),) = _figure(10, 2.8, 2)
    for axes, broker in ((left, "Redis"), (right, "RabbitMQ")):
        result = load(f"publishing_{broker.lower()}")["publishing"]
        _bars(axes, f"Publishing to {broker}, send_task = 1", _ratios(result), "{:.2f}x".format)
    return figure


def _end_to_end() -> Figure:
    cases = load("end_to_end")["cases"]
    figure, ((latency, rate),) = _figure(10, 2.4, 2)
    medians = {name: case["latency_ms"]["median"] for name, case in cases.items()}
    _bars(latency, "From dispatch to handler, median (log)", medians, "{:.3g} ms".format, log=True)
    rates = {name: case["events_a_second"]["median"] for name, case in cases.items()}
    _bars(rate, "Events a second (log)", rates, "{:,.0f}".format, log=True)
    return figure


def _api() -> Figure:
    result = load("api")["delays_ms"]
    figure, rows = _figure(10, 5, len(result), (1, 1))
    for column, (delay, cases) in enumerate(result.items()):
        response, rate = rows[0][column], rows[1][column]
        medians = {name: case["response_ms"]["median"] for name, case in cases.items()}
        tails = [case["response_ms"]["p95"] for case in cases.values()]
        _bars(response, f"Median | 95th, mail takes {delay} ms", medians, "{:.1f} ms".format, marks=tails)
        rates = {name: case["requests_a_second"]["median"] for name, case in cases.items()}
        _bars(rate, "Requests a second", rates, "{:,.0f}".format)
        for axes in (response, rate) if column else ():
            axes.set_yticklabels([])
    return figure


def main() -> None:
    draw = {"in_process": _in_process, "publishing": _publishing, "end_to_end": _end_to_end, "api": _api}
    for name, sources in PLOTS.items():
        metadata = {"Date": None, "Creator": None, "Description": f"figures {digest(*sources)}"}
        draw[name]().savefig(HERE / f"{name}.svg", metadata=metadata)


if __name__ == "__main__":
    main()
