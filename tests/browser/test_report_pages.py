"""The report in a browser, as somebody has it who clicked on a file: no server, no network, names that attack.

One browser and one report for all tests; ``tests.chromium`` says what they need.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli.report import report_of_runs
from bench.reports.html.dataset import dataset_report
from bench.reports.html.write import write_file, write_folder
from tests.chromium import WAIT_S, accessible, keep, needs_chromium, started
from tests.reports import METRIC, hostile_plugin, report_runs

pytestmark = needs_chromium
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
WIDTHS = (400, 1366, 2560)


class Page:
    """The browser on a report."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str) -> Any:
        """What ``script`` returns, once that is something."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.03)
        raise AssertionError(f"never: {script}; the browser says {self.driver.get_log('browser')}")

    def open(self, path: Path, address: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + address)
        self.until("return document.documentElement.dataset.ready")

    def image(self, image_id: str) -> None:
        """Wait until this image is on the stage."""
        self.until(f"return document.getElementById('image').dataset.shown === {json.dumps(image_id)}")

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def tags(self) -> list[str]:
        """What the stage says it shows."""
        return self.run(
            "return [...document.querySelectorAll('.tag')].filter((t) => !t.hidden).map((t) => t.textContent)"
        )

    def address(self) -> str:
        """The address, once the state is in it."""
        time.sleep(0.3)
        return str(self.run("return location.hash"))

    def width(self, pixels: int, *, dark: bool = False) -> None:
        size = {"width": pixels, "height": 768 if pixels > 500 else 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})

    def cards(self) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll('.card .title span:first-child')].map((c) => c.textContent)"
        )

    def choose(self, label: str, text: str) -> None:
        self.run(
            "const label = [...document.querySelectorAll('section:not([hidden]) label')].find((l) => l.firstChild."
            "textContent === arguments[0]); const select = label.querySelector('select');"
            "select.value = [...select.options].find((o) => o.textContent.includes(arguments[1])).value;"
            "select.dispatchEvent(new Event('change'))",
            label, text,
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pages")
    with hostile_plugin(root / "site"):
        report = report_of_runs(report_runs(root), max_images=200)
        write_folder(report, root / "report")
        write_file(report, root / "one.html")
        write_folder(dataset_report(str(root / "data"), max_images=200), root / "look")
        yield root


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    found = started(OFFLINE)
    yield found
    found.quit()


@pytest.fixture
def page(driver: Any) -> Iterator[Page]:
    found = Page(driver)
    found.width(1366)
    driver.get_log("browser")
    yield found
    assert not found.run("return window.pwned")
    assert not driver.get_log("browser")  # no error, and nothing that the policy had to stop
    elsewhere = (
        "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !/^(file|data):/.test(n))"
    )
    assert not found.run(elsewhere)


def test_tables_are_sorted_and_figures_lead_to_images(place: Path, page: Page) -> None:
    page.open(place / "report" / "index.html")
    rows = (
        "return [...document.querySelector('#part-results tbody').rows]"
        ".map((r) => r.cells[1].querySelector('.value').textContent)"
    )
    made = page.run(rows)
    page.run("document.querySelector('#part-results th[data-direction] button').click()")
    best_first = page.run(rows)
    page.run("document.querySelector('#part-results th[data-direction] button').click()")
    worst_first = page.run(rows)
    assert sorted(made) == sorted(best_first) and best_first == worst_first[::-1]
    numbers = [*map(float, best_first)]
    assert numbers == sorted(numbers, reverse=True)
    assert page.run("return document.querySelectorAll('#figures svg circle').length") == 8 + 7 + 7
    page.run("location.hash = document.querySelector('#figures svg a').getAttribute('href')")
    page.until("return document.getElementById('image').dataset.shown")


def test_orders_and_filters_and_their_address(place: Path, page: Page) -> None:
    page.open(place / "report" / "index.html", "#/images")
    page.choose("Order", "worst")
    scores = page.run(
        "const row = new URLSearchParams(location.hash.split('?')[1]).get('row') ?? rfbench.index.start.row;"
        "return rfbench.index.images.map((image) => [image.name, image.values[row][0]])"
    )
    expected = [name for name, _ in sorted(scores, key=lambda s: s[1] if s[1] is not None else 1e9)]
    assert page.cards() == expected
    page.choose("Order", "without a score")
    assert "im2" in page.cards() and "does not suit me" in page.run(
        "return document.querySelector('.cards').textContent"
    )
    address = page.address()
    page.open(place / "report" / "index.html", address)
    assert "im2" in page.cards()
    page.choose("Scene", "s6")
    page.choose("Order", "dataset")
    assert page.cards() == ["im6", "im7"]
    page.open(place / "report" / "index.html", page.address())
    assert page.cards() == ["im6", "im7"]


def test_one_image_by_keys_alone_and_its_address(place: Path, page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(place / "report" / "index.html", "#/image?id=im1")
    page.image("im1")
    assert len(page.tags()) == 2
    labels = page.run("return rfbench.index.panels.map((p) => p.label)")
    for n, label in enumerate(labels):
        page.keys(str(n + 1))
        assert page.tags() == [label]
    page.keys("s", "]", "]")
    assert page.tags() == ["HR", "HR"] and page.run("return document.querySelector('.range').value") == "54"
    page.keys("2", "e")
    assert "error" in page.tags()[0] and not page.run("return document.querySelector('.scale').hidden")
    page.keys("m", "+", "+", Keys.ARROW_RIGHT)
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', shiftKey: true, bubbles: true}))")
    assert page.run("return document.querySelectorAll('.outline.above').length") == 1 + len(labels)
    stage = page.run("return document.querySelector('.stage-view').getAttribute('aria-label')")
    assert "pixel 39, 30" in stage
    seen = "return [...document.querySelectorAll('.layer > :is(img, canvas, svg)')].map((e) => e.getAttribute('style'))"
    before, address = page.run(seen), page.address()
    page.open(place / "report" / "index.html", address)
    page.image("im1")
    assert page.run(seen) == before and "error" in page.tags()[0]
    assert stage == page.run("return document.querySelector('.stage-view').getAttribute('aria-label')")
    page.choose("Show", "classes of opensr_improvement")
    assert "hallucination" in page.run("return document.querySelector('.scale').textContent")
    page.keys("j")
    page.image("im2")
    assert "does not suit me" in page.run("return document.querySelector('.panels').textContent")
    page.keys("k")
    page.image("im1")
    page.keys("g")
    page.until("return !document.getElementById('images').hidden")


def test_pixels_are_those_of_the_report(place: Path, page: Page) -> None:
    from PIL import Image
    from selenium.webdriver.common.action_chains import ActionChains

    page.open(place / "report" / "index.html", "#/image?id=im3&a=r0&b=hr")
    page.image("im3")
    text = next(t for p in (place / "report" / "images").glob("*.js") if '"id":"im3"' in (t := p.read_text()))
    data = json.loads(text[text.index("{") : text.rindex(")")])
    stage = page.driver.find_element("css selector", ".stage-view")
    ActionChains(page.driver).move_to_element(stage).perform()
    said = page.run("return document.querySelector('.stage-view').getAttribute('aria-label')")
    x, y = (int(v) for v in said.split("; pixel ")[1].split(":")[0].split(", "))
    for key, label in (("r0", "bicubic"), ("hr", "HR")):
        png = base64.b64decode(data["pictures"][key].split(",")[1])
        assert f"{label} {' '.join(map(str, np.asarray(Image.open(io.BytesIO(png)))[y, x]))}" in said
    # The divider by the mouse: the picture on the right is cut where it was left.
    ActionChains(page.driver).move_to_element(stage).click_and_hold().move_by_offset(-80, 0).release().perform()
    cut = float(page.run("return document.querySelector('.stage-view').style.getPropertyValue('--cut')").rstrip("%"))
    width = page.run("return document.querySelector('.stage-view').clientWidth")
    assert cut == pytest.approx(50 - 100 * 80 / width, abs=1)


def test_hostile_names_are_shown_as_they_are(place: Path, page: Page) -> None:
    page.open(place / "report" / "index.html", "#/images?order=dataset")
    name = page.cards()[0]
    assert "</script><script>pwned=1" in name
    page.run("document.querySelector('.card a').click()")
    page.until("return document.getElementById('image').dataset.shown?.startsWith('im0')")
    text = page.run("return document.getElementById('image').textContent")
    assert "A slump </script>" in text and "<b>bold</b> {{7*7}}" in text
    assert METRIC in page.run("return document.body.textContent")
    assert page.run("return document.querySelectorAll('b').length + (window.pwned ?? 0)") == 0
    page.open(place / "report" / "index.html", "#/image?id=%3Cimg%20src%3Dx%20onerror%3Dpwned%3D1%3E&a=<b>&z=NaN&p=x")
    page.until("return !document.querySelector('#image .message').hidden")


def test_one_file_is_the_same_page(place: Path, page: Page) -> None:
    page.open(place / "one.html", "#/image?id=im5&show=map:guess")
    page.image("im5")
    assert any("guess" in tag for tag in page.tags())
    page.run("location.hash = '#/images'")
    page.until("return document.querySelector('.thumb img')?.complete")
    assert page.run("return document.querySelector('.thumb img').naturalWidth") > 100


@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_fits_and_axe_finds_nothing(place: Path, page: Page, width: int) -> None:
    fits = "return document.documentElement.scrollWidth <= innerWidth"
    views = {"overview": "", "images": "#/images", "image": "#/image?id=im1&show=error&mask=1&p=30,20"}
    for dark in (False, True) if width == 1366 else (width == 400,):
        page.width(width, dark=dark)
        for name, address in views.items():
            page.open(place / "report" / "index.html", address)
            if name == "image":
                page.image("im1")
            assert page.run(fits), (name, width)
            keep(page.driver, f"report-{name}-{width}{'-dark' * dark}")
            if width == 1366:
                accessible(page.driver, *(["color-contrast"] if dark else []))


def test_a_dataset_s_page(place: Path, page: Page) -> None:
    page.open(place / "look" / "index.html", "#/image?id=im1&mask=1")
    page.image("im1")
    assert page.tags() == ["LR", "HR"] and page.run("return document.querySelectorAll('.outline.above').length") == 4
    accessible(page.driver)
    page.run("location.hash = '#/images'")
    page.until("return document.querySelectorAll('.card').length === 8")
    accessible(page.driver)
