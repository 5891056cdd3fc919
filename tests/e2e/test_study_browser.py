"""Whole sittings in a browser: by mouse and by keyboard, through kills, reloads, two tabs and the back button.

``tests.chromium`` says what they need.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records.folder import RunFolder
from bench.study.plan import read_plan
from bench.study.store import Store
from tests.chromium import WAIT_S, accessible, keep, needs_chromium, started
from tests.studies import served, small_study, two_runs

pytest.importorskip("flask", reason="the study's server needs flask (pip install 'rfbench[study]')")
pytestmark = needs_chromium


class Page:
    """A reviewer's browser of 1366x768, as a laptop has it."""

    def __init__(self) -> None:
        self.driver = started()

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.settled()

    def settled(self, not_after: str = "") -> str:
        """Where the page is, once it is elsewhere than ``not_after`` and its pictures are there."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found: str | None = self.driver.execute_script(
                "const images = [...document.querySelectorAll('#panels img')];"
                "const ready = images.every((i) => i.complete && i.naturalWidth && i.getAttribute('width'));"
                "return ready && state ? document.getElementById('place').textContent : null"
            )
            if found and found != not_after:
                return found
            time.sleep(0.05)
        raise AssertionError(f"the page stays at '{not_after}': {self.message}")

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.driver.execute_script("return state")
        return found

    @property
    def message(self) -> str:
        return str(self.driver.execute_script("return document.getElementById('message').textContent"))

    @property
    def panels(self) -> list[str]:
        """The ids of the panels from left to right, as they stand on the screen."""
        found: list[str] = self.driver.execute_script(
            "return [...document.querySelectorAll('#panels img:not(.mask)')]"
            ".sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left).map((i) => i.dataset.id)"
        )
        return found

    @property
    def fits(self) -> bool:
        """Whether nothing has to be scrolled to."""
        return bool(self.driver.execute_script(
            "const page = document.documentElement;"
            "return page.scrollHeight <= innerHeight && page.scrollWidth <= innerWidth"
        ))  # fmt: skip

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def profile_by_mouse(self) -> None:
        from selenium.webdriver.common.by import By

        for name in ("role", "degree", "years"):
            self.click(f"input[name={name}]")
        field = self.driver.find_element(By.CSS_SELECTOR, "input[name=field]")
        field.send_keys("permafrost <b>soil</b>")
        place = self.settled()
        self.click("#next")
        self.settled(place)

    def profile_by_keyboard(self) -> None:
        from selenium.webdriver.common.keys import Keys

        place = self.settled()
        self.keys(Keys.SPACE, Keys.TAB, Keys.SPACE, Keys.TAB, "glaciers", Keys.TAB, Keys.SPACE, Keys.TAB, Keys.ENTER)
        self.settled(place)

    def answer_by_mouse(self, option: int) -> None:
        place = self.settled()
        for question in self.state["questions"]:
            if question["kind"] == "choice":
                chosen = question["options"][option % len(question["options"])]["value"]
                self.click(f"input[name={question['key']}][value='{chosen}']")
        self.click("#next")
        self.settled(place)

    def answer_by_keyboard(self, option: int) -> None:
        from selenium.webdriver.common.keys import Keys

        place = self.settled()
        choices = [q for q in self.state["questions"] if q["kind"] == "choice"]
        self.keys(*(str(option % len(q["options"]) + 1) for q in choices), Keys.ENTER)
        self.settled(place)

    def quit(self) -> None:
        self.driver.quit()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    return two_runs(tmp_path_factory.mktemp("runs"), 6)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    found = Page()
    yield found
    found.quit()


@pytest.fixture
def page(browser: Page) -> Page:
    """The browser as nobody has used it: no cookie, nothing on the page, no complaint."""
    browser.driver.delete_all_cookies()
    browser.driver.get("about:blank")
    browser.driver.get_log("browser")
    return browser


def links(study: Path, address: str) -> list[str]:
    from bench.study.server import invitations

    return [address + path for path in invitations(study).values()]


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def quiet(page: Page) -> None:
    """The browser complained of nothing but connections that the test cut."""
    lines = [entry["message"] for entry in page.driver.get_log("browser")]
    assert not [line for line in lines if "ERR_CONNECTION" not in line and "409" not in line], lines


@pytest.mark.parametrize("design", ["blind", "paper"])
def test_two_whole_sittings(tmp_path: Path, runs: list[RunFolder], page: Page, design: str) -> None:
    study = small_study(tmp_path, runs, design)  # type: ignore[arg-type]
    plan = read_plan(study)
    store = Store(study / "answers.sqlite", plan.sha256)
    by_mouse, by_keyboard, _ = plan.trials.values()
    seen: list[list[str]] = []
    with served(study) as (process, address):
        page.open(links(study, address)[0])
        keep(page.driver, f"{design}-profile")
        accessible(page.driver)
        page.profile_by_mouse()
        for n in range(6):
            if n == 0:
                assert page.state["kind"] == "caption" and page.fits
                keep(page.driver, f"{design}-caption")
                accessible(page.driver)
            seen.append(page.panels)
            page.answer_by_mouse(n)
        process.kill()  # between two answers, and an answer to a server that is not there
        process.wait()
        place = page.settled()
        for question in page.state["questions"]:
            if question["kind"] == "choice":
                page.click(f"input[name={question['key']}]")
        page.click("#next")
        deadline = time.monotonic() + WAIT_S
        while "cannot be reached" not in page.message and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "Your answer is still here" in page.message and page.settled() == place
    with served(study, port_of(address)) as (process, address):
        seen.append(page.panels)
        page.click("#next")  # the answer that could not be sent
        page.settled(place)
        assert len(store.answers("R01")) == 7 and not page.message
        page.driver.refresh()
        assert page.settled().endswith(f"page 8 of {len(by_mouse)}")

        # A second tab answers page 8; the first one, which does not know, is told and goes on.
        first = page.driver.current_window_handle
        page.driver.switch_to.new_window("tab")
        page.open(address)
        seen.append(page.panels)
        page.answer_by_mouse(1)
        page.driver.close()
        page.driver.switch_to.window(first)
        place = page.settled()
        for question in page.state["questions"]:
            if question["kind"] == "choice":
                page.click(f"input[name={question['key']}]")
        page.click("#next")
        assert page.settled(place).endswith(f"page 9 of {len(by_mouse)}") and "another tab" in page.message

        # Back, as the browser has it: an earlier page, with its answer, which may be corrected.
        seen.append(page.panels)
        page.answer_by_mouse(0)
        place = page.settled()
        page.driver.back()
        page.settled(place)
        assert page.state["n"] == 9 and page.state["earlier"] and page.state["known"] == 1
        page.answer_by_mouse(1)
        assert page.state["n"] == 10
        kinds = set()
        while page.state["step"] == "trial":
            seen.append(page.panels)
            kind = page.state["kind"]
            if kind not in kinds:
                kinds.add(kind)
                assert page.fits, f"{kind} has to be scrolled"
                keep(page.driver, f"{design}-{kind}")
                accessible(page.driver)
            page.answer_by_mouse(len(seen))
        accessible(page.driver)
        assert seen == [[p.id for p in t.panels] for t in by_mouse]  # every page, in the plan's order, as it stood

        page.driver.delete_all_cookies()
        page.open(links(study, address)[1])
        page.profile_by_keyboard()
        seen = []
        while page.state["step"] == "trial":
            seen.append(page.panels)
            if len(seen) == 3:
                page.keys("m", "+", "-", "p")
                assert page.settled(f"Part 1 of 2, page 3 of {len(by_keyboard)}").endswith(
                    f"page 2 of {len(by_keyboard)}"
                )
                page.answer_by_keyboard(2)
                continue_at = page.state["n"]
                assert continue_at == 3
            page.answer_by_keyboard(len(seen))
        assert seen == [[p.id for p in t.panels] for t in by_keyboard]
        quiet(page)

    events = store.events(kind="answer")
    for reviewer, trials, corrected in (("R01", by_mouse, 8), ("R02", by_keyboard, 1)):
        mine = [e for e in events if e.reviewer == reviewer]
        assert list(dict.fromkeys(e.trial for e in mine)) == [t.id for t in trials]
        twice = [t for t in {e.trial for e in mine} if sum(e.trial == t for e in mine) > 1]
        assert twice == [trials[corrected].id] and len(mine) == len(trials) + 1
        assert all(e.body["view"]["width"] == 1366 and e.body["view"]["zoom"] >= 1 for e in mine)
        assert all(e.body["view"]["elapsed_ms"] > 0 for e in mine)
    assert not store.events(kind="incident")


def test_a_forged_and_a_replayed_request_of_the_page(tmp_path: Path, runs: list[RunFolder], page: Page) -> None:
    study = small_study(tmp_path, runs)
    store = Store(study / "answers.sqlite", read_plan(study).sha256)
    with served(study) as (_, address):
        page.open(links(study, address)[2])
        page.profile_by_keyboard()
        send = (
            "const done = arguments[arguments.length - 1];"
            "const body = {submission: 'replayed-0001', answers: {validity: 'valid'}, ...seen(), ...arguments[0]};"
            "const headers = {'Content-Type': 'application/json', 'X-CSRF-Token': state.csrf};"
            "fetch('/api/answer', {method: 'POST', headers, body: JSON.stringify(body)}).then((r) => done(r.status))"
        )
        statuses = [page.driver.execute_async_script(send, {}) for _ in range(3)]
        assert statuses == [200, 200, 200] and len(store.events("R03", "answer")) == 1
        assert page.driver.execute_async_script(send, {"trial": "0" * 24, "submission": "forged-00001"}) == 404
        # A double click on the button sends once.
        page.open(address)
        here = page.settled()
        page.driver.execute_script(
            "document.querySelector('input[name=validity]').click();"
            "for (let i = 0; i < 5; i += 1) document.getElementById('next').click();"
        )
        page.settled(here)
        assert len(store.events("R03", "answer")) == 2
        # Another site's form cannot do it: no token, no answer.
        plain = urllib.request.Request(f"{address}/api/answer", b"{}", {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(plain)
        quiet_lines = [e["message"] for e in page.driver.get_log("browser") if "404" not in e["message"]]
        assert not quiet_lines
