"""The page and the Markdown: nothing from elsewhere, no script, and names stay names."""

from __future__ import annotations

import html.parser
import json
import re
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from convexport.benchmarks.host import Load
from convexport.benchmarks.report.charts import Axis, Chart, decades, number, round_ticks
from convexport.benchmarks.report.document import document
from convexport.benchmarks.report.headline import headline
from convexport.benchmarks.report.latency_plots import over_time
from convexport.benchmarks.report.plots import pareto
from convexport.benchmarks.report.render import as_markdown, files, overview
from convexport.benchmarks.report.sections import picture
from convexport.benchmarks.trace import Trace
from convexport.benchmarks.watch import Watch, watched
from convexport.runtime.errors import InputError
from tests.benchmarks.report.conftest import recording

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "{{7*7}}{% raw %}",
    "a|b|c\n| d |",
    "\x1b[31mred\x1b[0m\u202egnp",
    "www.example.org",
    "](javascript:alert(1)) ![x](http://example.org/x.png) <!-- @everyone #1",
    '" onload="alert(1)',
)


class Elements(html.parser.HTMLParser):
    """All elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(report: Any) -> str:
    return files(report)["report.html"].decode()


def test_the_page_needs_nothing_else_and_runs_nothing(make_report: Any) -> None:
    page = page_of(make_report())
    elements = Elements(page)
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:,")), (tag, target)
    assert "url(" not in page and "@import" not in page and "@font-face" not in page
    (policy,) = (a["content"] for t, a in elements.found if a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_everything_that_was_measured_is_on_the_page(make_report: Any) -> None:
    text = Elements(page_of(make_report())).text
    said = (
        "PASS", "5 ms", "How long a call takes", "Latency over time", "Accuracy against latency",
        "How far logits moved", "a.png", "cat", "conv30", "reaches 40%", "server", "open", "decode",
        "Throughput by batch", "made up", "30 min", "first and last 60 s", "1 thread", "12.5 GB/s",
    )  # fmt: skip
    assert [each for each in said if each not in text] == []
    two = next(row for row in overview(make_report()).rows if row[0] == "two")
    assert two[1] == "PASS" and two[2].startswith("2.0")


def test_doubts_about_parts_and_batches_are_on_the_page(make_report: Any) -> None:
    report = make_report()
    before = Elements(page_of(report)).text
    assert "not watched" in before  # as an older version wrote it
    load = Load(load_1m=2.0, own=0.5, others=0.3, steal=0.0, throttles=0)
    watch = Watch(load=load, cpus=2, provider="CPU", traces=(None,), settled=(False,))
    for name in ("parts", "batches"):
        report[name]["one"] |= watched(watch)
    text = Elements(page_of(report)).text
    assert "not watched" not in text
    assert len(watch.doubts()) == 2
    assert [text.count(each) - before.count(each) for each in watch.doubts()] == [2, 2]


def test_what_was_not_measured_says_so_and_how(make_report: Any) -> None:
    bundle = make_report()["bundles"][0]
    for key in ("verification", "accuracy", "layers"):
        bundle[key] = "not measured"
    text = Elements(page_of(document([bundle]))).text
    assert text.count("not measured") > 8
    assert "convexport report one --measure" in text
    assert "convexport report one --measure --data DIR" in text
    assert "convexport report one --measure --scenario server" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_names(make_report: Any, name: str) -> None:
    report = json.loads(json.dumps(make_report()).replace('"one"', json.dumps(name)))
    for bundle in report["bundles"]:
        bundle["name"] = name
    report = document(report["bundles"], report["latency"], warnings=[name], candidates=[
        {"candidate": name, "outcome": name, "why": name}], command=[name])  # fmt: skip
    plain, hostile = Elements(page_of(make_report(ms=(10.0, 5.0)))), Elements(page_of(report))
    assert {tag for tag, _ in hostile.found} <= {tag for tag, _ in plain.found}
    attributes = {key for _, found in hostile.found for key in found}
    assert attributes <= {key for _, found in plain.found for key in found}
    assert "\x1b" not in hostile.text and "\u202e" not in hostile.text
    assert "49{" not in hostile.text

    markdown = as_markdown(report)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 4, "a name made another row"
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 9, "a name made another cell"
    bare = re.sub(r"\\.", "", markdown.replace("<sub>", "").replace("</sub>", ""))
    assert not set("<>[]`@") & set(bare) and "www." not in bare
    assert "\x1b" not in markdown and "\u202e" not in markdown


def test_random_weights_are_said_first(make_report: Any) -> None:
    bundles = make_report()["bundles"]
    bundles[1]["random_weights"] = True
    report = document(bundles)
    page = page_of(report)
    assert page.index("Random weights") < page.index('class="word"')
    assert "Random weights" in as_markdown(report)


def test_a_page_of_many_samples_is_small(make_report: Any) -> None:
    report = make_report(n=20_000)
    assert sum(row["n"] for row in report["latency"]["subjects"]) == 200_000
    for bundle in report["bundles"]:
        bundle["layers"]["layers"] *= 50
    report = document(report["bundles"], report["latency"])
    begin = time.process_time()
    written = files(report)
    assert time.process_time() - begin < 3
    assert len(written["report.html"]) < 1_000_000
    assert "300 of 1500" in written["report.html"].decode()


@pytest.mark.parametrize(
    "path",
    [
        ("bundles", 0, "files"),
        ("latency", "conditions"),
        ("verdict",),
        ("convexport",),
        ("created",),
    ],
)
def test_a_report_without_its_parts_is_refused(make_report: Any, path: tuple[Any, ...]) -> None:
    report = part = json.loads(json.dumps(make_report()))
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    with pytest.raises(InputError, match="E0379"):
        files(report)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.1, 0.35), (-3, 7), (998, 1002), (0, 1e-6), (5, 5), (0, 3e9)]
)
def test_ticks_are_round_even_and_inside(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in ticks) and 1 <= len(ticks) <= 8
    if high > low:
        steps = {round((b - a) / (high - low), 9) for a, b in pairwise(ticks)}
        assert len(steps) == 1 and len(ticks) >= 3
    assert all(len(number(each)) <= 7 for each in ticks)


@pytest.mark.parametrize(("low", "high"), [(0.3, 17), (1e-9, 1e3), (0.044, 0.5), (2, 2.2)])
def test_logarithmic_ticks_are_inside(low: float, high: float) -> None:
    ticks = decades(low, high)
    assert all(low * 0.99 <= each <= high * 1.01 for each in ticks) and len(ticks) <= 9


def test_a_chart_escapes_its_words() -> None:
    chart = Chart("<script>", "&", Axis(0, 1, "<b>"), Axis(0, 1, '"'))
    chart.line([(0, 0), (1, 2)], 7)
    svg = str(chart.svg())
    assert "<script>" not in svg and "<b>" not in svg and "&lt;script&gt;" in svg
    assert 's1"' in svg  # the eighth series has the second's colour


def test_bundles_that_were_not_timed_side_by_side_share_no_chart(make_report: Any) -> None:
    report = make_report()
    assert picture(report) is not None
    for bundle in report["bundles"]:
        bundle["latency"] = report["latency"]
    apart = document(report["bundles"])
    assert picture(apart) is None and files(apart)


def test_a_strange_verdict_stays_text_in_markdown(make_report: Any) -> None:
    report = make_report()
    report["verdict"]["verdict"] = "<b>\n| PASS"
    assert as_markdown(report).startswith("### tiny: \\<b\\>\N{REPLACEMENT CHARACTER}\\| PASS\n")


def test_no_latency_stands_first_without_parity_of_the_same_file(make_report: Any) -> None:
    report = make_report()
    bundle = report["bundles"][1]
    bundle["verification"], bundle["parity"] = "not measured", {}
    report = document(report["bundles"], report["latency"])
    head = headline(report, bundle)
    assert head.verdict == "NOT MEASURED" and "times as fast" not in head.sentence
    assert [tile.value for tile in head.tiles[:2]] == ["no parity", "no parity"]
    assert headline(report, report["bundles"][0]).tiles[1].unit == "ms"


def test_a_few_calls_have_no_median(make_report: Any) -> None:
    report = make_report()
    row = report["latency"]["subjects"][1]
    row["n"], row["percentiles_ms"]["p50"] = 5, {"value": None, "low": None, "high": None}
    head = headline(report, report["bundles"][1])
    assert (head.tiles[1].value, head.tiles[1].unit) == ("n too small", "")
    assert head.tiles[1].detail.startswith("n = 5") and "5 calls are too few" in head.sentence


@pytest.mark.parametrize("n", [10, 20])
def test_slow_calls_are_drawn_over_time(n: int) -> None:
    """Below 40 calls a process, as of any net above 50 ms in 10 s of five processes."""
    figure = next(over_time(recording(("slow", "0" * 64, 400.0), n=n)))
    assert str(figure.svg).count('class="line s0"') == 5


def test_what_a_gpu_did_is_drawn() -> None:
    seen = recording(("one", "0" * 64, 10.0))
    trace = Trace(t_s=(0.0, 1.0), gpu_clock_mhz=(1500.0, 1400.0), gpu_power_w=(200.0, 210.0))
    runs = tuple(replace(run, trace=trace) for run in seen.runs)
    titles = [figure.title for figure in over_time(replace(seen, runs=runs))]
    assert titles[1:] == ["GPU clock", "GPU power"]


def test_what_is_beaten_at_equal_time_is_not_on_the_front() -> None:
    shares = [{"share": s, "low": s - 0.1, "high": s + 0.1} for s in (0.8, 0.7, 0.8, 0.9)]
    times = (5.0, 5.0, 6.0, 9.0)
    figure = pareto([(str(i), t, s) for i, (t, s) in enumerate(zip(times, shares, strict=True))])
    assert [row[3] for row in figure.data.rows] == ["yes", "no", "no", "yes"]
