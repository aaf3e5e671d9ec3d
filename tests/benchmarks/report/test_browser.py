"""The page in a browser: no error, no request, no overflow, in the light, the dark and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convexport.benchmarks.report.document import document
from convexport.benchmarks.report.render import files
from convexport.benchmarks.report.thumbnails import with_thumbnails
from convexport.calibration.images import folder
from tests.benchmarks.report.test_page import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def page_file(make_report: Any, tmp_path: Path) -> Path:
    """A page with hostile names, and with words too long for any line."""
    report = make_report()
    bundles = report["bundles"]
    bundles[0]["name"] = HOSTILE[0]
    bundles[1]["layers"]["layers"][0]["name"] = "layer_" * 40
    thumbnails = folder(picture(tmp_path / "images"))
    bundles[0]["verification"] = with_thumbnails(bundles[0]["verification"], thumbnails)
    more = {key: report[key] for key in ("scenarios", "parts", "soak", "batches", "stages")}
    report = document(bundles, report["latency"], **more, warnings=[*HOSTILE, "x" * 400],
                      command=["convexport", "y" * 300])  # fmt: skip
    path = tmp_path / "report.html"
    path.write_bytes(files(report)["report.html"])
    return path


def picture(place: Path) -> Path:
    """A directory with the image that moved most."""
    place.mkdir()
    Image.effect_noise((40, 40), 200).save(place / "a.png")
    return place


def opened(browser: Any, page_file: Path, width: int, scheme: str) -> Any:
    """The page, with what it complained of and asked for."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: page.said.append("a dialog opened"))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(page_file.as_uri(), wait_until="load")
    return page


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_asks_for_nothing_and_complains_of_nothing(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    page = opened(browser, page_file, width, scheme)
    assert page.asked == [page_file.as_uri()] and page.said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.inner_text("h1") == HOSTILE[0]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(each) for each in paper.removeprefix("rgb(").strip(")").split(",")) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(browser: Any, page_file: Path, scheme: str) -> None:
    """WCAG's contrast of 4.5 for each colour that words are written in."""
    page = opened(browser, page_file, 1280, scheme)
    found = page.evaluate("""() => {
        const paint = name => {
            const probe = document.createElement('i');
            probe.style.color = `var(${name})`;
            document.body.append(probe);
            return getComputedStyle(probe).color.match(/\\d+/g).map(Number);
        };
        const names = ['--ink', '--soft', '--accent', '--warn', '--bad'];
        return [paint('--paper'), ...names.map(paint)];
    }""")

    def luminance(rgb: list[int]) -> float:
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    paper, *colours = (luminance(each) for each in found)
    for colour in colours:
        high, low = max(paper, colour), min(paper, colour)
        assert (high + 0.05) / (low + 0.05) >= 4.5
    page.close()


def test_the_keyboard_reaches_what_scrolls_and_unfolds(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file, 1280, "light")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
        if "BODY" in reached:
            break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert {"A", "SUMMARY", "DIV"} <= reached
    page.close()


def test_tables_and_landmarks_are_named(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file, 1280, "light")
    assert page.locator("header, main, nav[aria-label], footer").count() == 4
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("svg[role=img]").count() > 3
    assert page.locator("svg:not(:has(> title))").count() == 0
    assert page.locator("figure:not(:has(table))").count() == 0
    page.close()


def test_small_pictures_are_shown(browser: Any, page_file: Path) -> None:
    """The page's own policy lets them in."""
    page = opened(browser, page_file, 1280, "light")
    sizes = page.evaluate("[...document.images].map(each => [each.alt, each.naturalWidth])")
    assert sizes == [["a.png", 40]]
    page.close()


def test_it_prints(browser: Any, page_file: Path, tmp_path: Path) -> None:
    page = opened(browser, page_file, 1280, "dark")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    paper = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink')")
    assert paper.strip() == "#1c1f22", "paper is always light"
    page.close()
