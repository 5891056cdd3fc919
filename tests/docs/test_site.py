"""The documentation's site: it builds without a warning, and what its pages link to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT

SOURCES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")),
           *sorted((ROOT / "results").rglob("*.md")))  # fmt: skip


def test_links_of_the_sources_lead_to_files() -> None:
    """As a forge shows them, before any site is built."""
    lost = []
    for page in SOURCES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            there = link.partition("#")[0]
            if there and "://" not in link and not (page.parent / there).exists():
                lost.append(f"{page.relative_to(ROOT)}: {link}")
    assert not lost


def test_the_page_of_the_small_model_has_the_published_table() -> None:
    page = (ROOT / "docs" / "rareflow-tiny.md").read_text(encoding="utf-8")
    ((name, table),) = re.findall(r"<!-- table: (\S+) -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert (ROOT / name).read_text(encoding="utf-8").startswith(table)


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {v for k in ("id", "name") if (v := given.get(k))}
        self.links |= {v for k in ("href", "src") if (v := given.get(k))}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("sphinx", "furo", "myst_nb", "sphinx_click"):
        pytest.importorskip(name, reason="the site needs the extra docs")
    out = tmp_path_factory.mktemp("site")
    words = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(out / "read"),
        "docs",
        str(out / "site"),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return out / "site"


def test_every_link_within_the_site_holds(site: Path) -> None:
    pages = {path: _Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 90
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchored = not parts.fragment or there not in pages or unquote(parts.fragment) in pages[there].anchors
            if not (there.exists() and anchored):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert not lost


def test_the_site_needs_no_network(site: Path) -> None:
    """Neither scripts nor styles come from elsewhere, so it can be read and searched from a folder."""
    for path in (site / "index.html", site / "search.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text)
    assert (site / "searchindex.js").stat().st_size > 100_000


def test_there_is_a_card_for_every_metric_and_system(site: Path) -> None:
    from importlib.metadata import entry_points

    for group, folder in (("rfbench.metrics", "metrics"), ("rfbench.models", "systems")):
        ours = [p.name for p in entry_points(group=group) if p.dist is not None and p.dist.name == "rfbench"]
        assert ours and {f"{name}.html" for name in ours} <= {p.name for p in (site / "made" / folder).iterdir()}
