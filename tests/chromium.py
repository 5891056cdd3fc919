"""A browser for tests: Debian's ``chromium`` and ``chromium-driver`` (or what RFBENCH_CHROMIUM and RFBENCH_CHROMEDRIVER
name), driven by selenium.

Pages are held against axe-core: that of ``axe-selenium-python``, or the ``axe.min.js`` that RFBENCH_AXE names (``npm
pack axe-core`` has the newest). With RFBENCH_SCREENSHOTS, a folder, a picture of each kind of page is kept to be
looked at.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = os.environ.get("RFBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = os.environ.get("RFBENCH_CHROMEDRIVER") or shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here (apt-get install chromium chromium-driver)"
)
WAIT_S = 60.0


def started(*words: str) -> Any:
    """A driver with a window of 1366x768 px, as a laptop has it; ``words`` are more of the browser's options."""
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # The second is the window without the browser's own bars; a container has no sandbox and little shared memory.
    for word in ("--headless=new", "--window-size=1366,768", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                 *words):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(WAIT_S)
    driver.set_script_timeout(WAIT_S)
    return driver


def keep(driver: Any, name: str) -> None:
    """Keep a picture of the page where one is asked for."""
    folder = os.environ.get("RFBENCH_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def axe() -> Path | None:
    """axe-core's script, or None where there is none."""
    if "RFBENCH_AXE" in os.environ:
        return Path(os.environ["RFBENCH_AXE"])
    found = importlib.util.find_spec("axe_selenium_python")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.rglob("axe.min.js"), None)


def accessible(driver: Any, *rules: str) -> None:
    """Hold the page against axe-core, where there is one: all its rules, or these."""
    path = axe()
    if path is None:
        return
    driver.execute_script(path.read_text(encoding="utf-8"))
    # Without preloading it asks for no file, which a page from a folder may not.
    options = {"preload": False} | ({"runOnly": {"type": "rule", "values": list(rules)}} if rules else {})
    run = "axe.run(arguments[0]).then((r) => arguments[arguments.length - 1](r.violations))"
    found = driver.execute_async_script(run, options)
    assert not found, json.dumps([(v["id"], v["help"], [n["html"] for n in v["nodes"]]) for v in found], indent=1)
