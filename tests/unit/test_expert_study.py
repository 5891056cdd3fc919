"""The expert study: its plan, its server and what it refuses, its answers, and what is made of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from click.testing import CliRunner, Result

from bench.cli import cli
from bench.cli.report import report_of_runs
from bench.core.errors import NotComparable, RfbenchError
from bench.core.typed import decode_file
from bench.records.folder import RunFolder
from bench.reports.table.build import build_table
from bench.reports.table.write import WRITERS as TABLE_WRITERS
from bench.study.agreement import agreement, alpha, counted, fleiss_kappa, gwet_ac1, raw_agreement
from bench.study.columns import with_votes
from bench.study.create import parts_of
from bench.study.crossed import share_of, verdict
from bench.study.design import HR, LR, PIXELS, Sizes, plan_sittings
from bench.study.plan import Key, Secret, read_key, read_plan
from bench.study.report import build, to_latex, to_markdown, to_methods
from bench.study.store import Store
from bench.study.strength import Comparison, strengths
from bench.study.trust import trust
from bench.study.votes import catches, read_study, repeats
from tests.studies import PROFILE, Reviewer, any_answer, keyed_answer, quality, small_study, two_runs

flask = pytest.importorskip("flask", reason="the study's server needs flask (pip install 'rfbench[study]')")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(w) for w in words], standalone_mode=False)


def complaint(result: Result) -> str:
    assert isinstance(result.exception, RfbenchError), result.exception or result.output
    return str(result.exception)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    return two_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, runs: list[RunFolder]) -> dict[str, Path]:
    """A study of each design without an answer; tests take copies."""
    root = tmp_path_factory.mktemp("studies")
    return {design: small_study(root, runs, design) for design in ("blind", "paper")}  # type: ignore[arg-type]


@pytest.fixture
def blind(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["blind"], tmp_path / "blind"))


def reviewers(study: Path) -> list[Reviewer]:
    from bench.study.server import invitations, make_app

    app = make_app(study, set())
    return [Reviewer(app, path) for path in invitations(study).values()]


# --- the plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["blind", "paper"])
@pytest.mark.parametrize(
    ("count", "systems", "people", "each"), [(24, 3, 8, 30), (24, 1, 3, 24), (10, 2, 5, 13), (40, 4, 9, 25)]
)
def test_a_plan_is_balanced(design: str, count: int, systems: int, people: int, each: int) -> None:
    images, labels = [f"i{n:02}" for n in range(count)], [f"m{n}" for n in range(systems)]
    sizes = Sizes(people, each, common=5, ratings=0)
    sittings = plan_sittings(images, labels, design, sizes, 3)
    assert (
        sittings == plan_sittings(images, labels, design, sizes, 3) != plan_sittings(images, labels, design, sizes, 4)
    )
    shared = set.intersection(*(set(s.items) for s in sittings))
    seen = Counter(item for s in sittings for item in s.items if item not in shared)
    others = [seen[i, m] for i in images for m in labels if (i, m) not in shared]
    assert len(shared) >= 5 and (not others or max(others) - min(others) <= 1)
    for s in sittings:
        assert len(s.items) == len(set(s.items)) == min(each, count * systems)
        main = [c for c in s.comparisons if c.purpose in ("own", "common")]
        for kind in {c.kind for c in main}:
            if kind in ("clarity", "parity", "paper"):
                of = [c for c in s.comparisons if c.kind == kind and c.purpose not in ("repeat",)]
                right = sum(c.left in (HR, LR) for c in of if c.purpose != "same")
                assert abs(2 * right - len(of)) <= 3, (kind, right, len(of))
        again = [(n, c) for n, c in enumerate(s.comparisons) if c.purpose == "repeat"]
        assert len(again) == 3
        for n, c in again:
            earlier = s.comparisons[c.repeat_of]
            assert c.repeat_of < n and (c.left, c.right, c.image) == (earlier.right, earlier.left, earlier.image)
        assert (
            Counter(c.purpose for c in s.comparisons)["same"] == Counter(c.purpose for c in s.comparisons)["worse"] == 1
        )
        follows = sum(a.image == b.image for a, b in zip(s.comparisons, s.comparisons[1:], strict=False))
        assert follows <= 2
    # Over reviewers, too, an item does not keep its side.
    sides: dict[tuple[str, str, str], list[bool]] = {}
    for s in sittings:
        for c in s.comparisons:
            if c.purpose == "common" and c.kind != "between":
                sides.setdefault((c.kind, c.image, c.right if c.left in (HR, LR) else c.left), []).append(
                    c.left in (HR, LR)
                )
    assert all(0 < sum(of) < len(of) for of in sides.values() if len(of) >= 4)


def test_sizes_that_cannot_be_met_are_refused() -> None:
    images, labels = [f"i{n}" for n in range(20)], ["a", "b"]
    with pytest.raises(
        RfbenchError, match=r"give some of the 40 samples 1 ratings, --ratings asks for 3; that takes 5 reviewers"
    ):
        plan_sittings(images, labels, "blind", Sizes(2, 30, ratings=3), 1)
    assert plan_sittings(images, labels, "blind", Sizes(5, 30, ratings=3), 1)
    for wrong in (Sizes(0), Sizes(1, each=0), Sizes(1, each=4, repeats=5), Sizes(1, catches=-1)):
        with pytest.raises(RfbenchError, match="--"):
            plan_sittings(images, labels, "blind", wrong, 1)


@pytest.mark.parametrize("design", ["blind", "paper"])
def test_nothing_that_is_served_tells_a_model(made: dict[str, Path], runs: list[RunFolder], design: str) -> None:
    study = made[design]
    words = ["bicubic", "nearest", "interpol", "psnr", *(r.path.name for r in runs), str(runs[0].path.parent)]
    everything = (study / "plan.json").read_text() + "".join(
        p.read_text() for p in (Path(__import__("bench").__file__).parent / "study/pages").iterdir()
    )
    for who in reviewers(study):
        page = who.client.get("/")
        everything += page.text + str(page.headers)
        who_state = who.state()
        everything += json.dumps(who_state)
    assert not [w for w in words if w in everything]
    plan, key = read_plan(study), decode_file(study / "key.json", Key)
    ids = [i for of in plan.trials.values() for t in of for i in (t.id, *(p.id for p in t.panels), t.mask) if i]
    assert len(ids) == len(set(ids)) and all(len(i) == 24 for i in ids)  # no picture is known again by its name
    sizes = set()
    for of in plan.trials.values():
        for trial in of:
            for panel in trial.panels:
                data = (study / "pictures" / f"{panel.id}.png").read_bytes()
                sizes.add(len(data))
                assert PIL.Image.open(__import__("io").BytesIO(data)).info == {} and data.count(b"IDAT") >= 1
                assert not any(kind in data for kind in (b"tEXt", b"iTXt", b"tIME", b"eXIf"))
    assert len(sizes) == 1  # LR, SR and HR are equally long
    assert {s.label for s in key.systems} == {"nearest", "bicubic"} and key.sha256 == plan.key_sha256
    for name in ("key.json", "secret.json", "plan.json", "answers.sqlite"):
        assert (study / name).stat().st_mode & 0o077 == 0


def test_the_pictures_are_what_metrics_looked_at(made: dict[str, Path], runs: list[RunFolder]) -> None:
    from bench.reports.pictures import eight_bit
    from bench.score.replay import replay

    study = made["blind"]
    plan, key = read_plan(study), decode_file(study / "key.json", Key)
    expected: dict[tuple[str, str], np.ndarray] = {}
    for run_folder, system in zip(runs, key.systems, strict=True):
        for task, found in replay(run_folder):
            expected[task.id, system.label] = eight_bit(found["sample"].display)
            expected[task.id, HR] = eight_bit(task.reference.display)
            expected[task.id, LR] = np.kron(eight_bit(task.lr_display), np.ones((4, 4, 1), np.uint8))
    checked = 0
    for of in plan.trials.values():
        for trial in of:
            for panel, what in zip(trial.panels, key.shown[trial.id].panels, strict=True):
                name = LR if what == PIXELS else what
                with PIL.Image.open(study / "pictures" / f"{panel.id}.png") as picture:
                    assert np.array_equal(np.asarray(picture), expected[key.shown[trial.id].image, name])
                checked += 1
    assert checked > 50


def test_captions_fall_into_parts() -> None:
    parts = parts_of("A pale slump at the left cuts into dry tundra above a lake, with snow.")
    assert parts == ("A pale slump at the left cuts", "into dry tundra", "above a lake,", "with snow.")
    assert parts_of("") == ()


# --- the server -----------------------------------------------------------------------------------------------


def test_a_sitting_is_stored_in_its_order_and_resumed(blind: Path) -> None:
    first = reviewers(blind)[0]
    assert first.state()["step"] == "profile"
    first.begin()
    total = first.state()["total"]
    assert first.sit(any_answer, 5) == 5
    again = reviewers(blind)[0]  # another process, another browser, the same link
    assert again.state()["n"] == 6
    assert again.sit(any_answer) == total - 5 and again.state()["step"] == "done"
    plan = read_plan(blind)
    store = Store(blind / "answers.sqlite", plan.sha256)
    assert [e.trial for e in store.events("R01", "answer")] == [t.id for t in plan.trials["R01"]]
    assert {e.body["view"]["zoom"] for e in store.events("R01", "answer")} == {2.0}


def test_corrections_append_and_replays_do_not(blind: Path) -> None:
    who = reviewers(blind)[0]
    who.begin()
    state = who.state()
    body = who.body(state, {"validity": "valid"})
    for _ in range(3):  # sent again and again
        assert who.post("/api/answer", body).status_code == 200
    plan = read_plan(blind)
    store = Store(blind / "answers.sqlite", plan.sha256)
    assert len(store.events("R01", "answer")) == 1
    stale = who.post("/api/answer", who.body(state, {"validity": "not"}))  # of a second tab that knew of none
    assert stale.status_code == 409 and "another tab" in stale.json["error"]
    earlier = who.state(1)
    assert earlier["earlier"] == {"validity": "valid"} and earlier["known"] == 1
    corrected = {"validity": "partly", "parts": [0], "unsure": True, "comment": "<script>alert(1)</script>"}
    assert who.post("/api/answer", who.body(earlier, corrected)).status_code == 200
    assert len(store.events("R01", "answer")) == 2
    assert store.answers("R01")["R01", state["trial"]].body["answers"] == corrected
    assert who.state()["n"] == 2


def test_what_is_forged_is_refused(blind: Path) -> None:
    one, two, _ = reviewers(blind)
    assert one.post("/api/answer", {}).status_code == 404
    state = one.state()
    one.begin()
    two.begin()
    state = one.state()
    good = one.body(state, {"validity": "valid"})
    cases: list[tuple[dict[str, Any], int]] = [
        ({"trial": two.state()["trial"]}, 404),  # another reviewer's page
        ({"trial": read_plan(blind).trials["R01"][3].id}, 409),  # a page before its turn
        ({"trial": "x" * 500}, 404),
        ({"shown": [*good["shown"][::-1], "f" * 24]}, 400),
        ({"answers": {"validity": "excellent"}}, 400),
        ({"answers": {}}, 400),
        ({"answers": {"validity": "valid", "score": 9}}, 400),
        ({"answers": {"validity": "valid", "parts": [99]}}, 400),
        ({"answers": {"validity": "valid", "comment": "x" * 3000}}, 400),
        ({"answers": ["valid"]}, 400),
        ({"known": None}, 400),
        ({"submission": "a b"}, 400),
    ]
    for change, status in cases:
        response = one.post("/api/answer", good | change)
        assert response.status_code == status and response.json["error"], change
    assert one.post("/api/answer", good, **{"X-CSRF-Token": "0" * 32}).status_code == 403
    assert one.post("/api/answer", good, Origin="https://elsewhere.example").status_code == 403
    assert one.client.post("/api/answer", data="x" * 30_000).status_code in (403, 413)
    assert one.client.get("/i/" + "A" * 40).status_code == 403
    assert one.client.get("/", headers={"Host": "elsewhere.example"}).status_code == 421
    assert one.client.get(f"/p/{two.state()['panels'][0]['id']}.png").status_code == 404
    for path in ("/p/../key.json", "/p/..%2fkey.json", "/key.json", "/pages/../plan.py", "/static/x"):
        assert one.client.get(path).status_code == 404, path
    plan = read_plan(blind)
    store = Store(blind / "answers.sqlite", plan.sha256)
    assert not store.events(kind="answer")
    assert {e.body["what"] for e in store.events(kind="incident")} == {
        "a trial that is not this reviewer's", "a trial before its turn", "panels shown in another order than planned",
    }  # fmt: skip
    assert "incident" in run("study", "status", blind).stderr


def test_headers_and_strangers(blind: Path) -> None:
    from bench.study.server import make_app

    app = make_app(blind, set())
    response = app.test_client().get("/")
    assert "invitation link" in response.text and "study.js" not in response.text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff" and response.headers["Cache-Control"] == "no-store"
    assert app.test_client().get("/api/state").status_code == 403
    who = reviewers(blind)[0]
    cookie = who.client.get_cookie("study")
    assert cookie is not None and cookie.http_only and cookie.same_site == "Lax"
    for name in ("study.html", "uninvited.html", "study.js", "study.css"):
        text = (Path(__import__("bench").__file__).parent / "study/pages" / name).read_text()
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text


def test_behind_a_proxy(blind: Path) -> None:
    from bench.study.server import invitations, make_app

    app = make_app(blind, set(), "https://study.example.org")
    who = Reviewer(app, invitations(blind)["R01"])
    cookie = who.client.get_cookie("study")
    assert cookie is None or cookie.secure
    assert app.test_client().get("/", headers={"Host": "study.example.org"}).status_code == 200
    assert app.test_client().get("/", headers={"Host": "study.example.com"}).status_code == 421
    with pytest.raises(RfbenchError, match="expected an address"):
        make_app(blind, set(), "study.example.org")


def test_the_server_never_reads_the_key(blind: Path) -> None:
    (blind / "key.json").unlink()
    who = reviewers(blind)[0]
    who.begin()
    assert who.sit(any_answer) > 10


def test_a_changed_plan_or_database_is_refused(blind: Path) -> None:
    path = blind / "plan.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    assert "has answers to another plan" in complaint(run("study", "status", blind))
    db = sqlite3.connect(blind / "answers.sqlite")
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        db.execute("INSERT INTO events (at, reviewer, kind, body) VALUES ('', 'R01', 'answer', '{}')")
        db.execute("UPDATE events SET body = '{\"x\": 1}'")
    db.close()
    assert "holds no study" in complaint(run("study", "status", blind.parent))


# --- from the first answer to the report ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both designs, sat through by people who find bicubic better than nearest, and closed."""
    found = {}
    for design, study in made.items():
        copy = Path(shutil.copytree(study, tmp_path_factory.mktemp("finished") / design))
        answer = keyed_answer(copy, quality({"bicubic": 1.0, "nearest": 0.0}))
        for n, who in enumerate(reviewers(copy)):
            who.begin(PROFILE | {"role": ["scientist", "assistant", "scientist"][n]})
            who.sit(answer)
        assert run("study", "close", copy).exception is None
        found[design] = copy
    return found


def test_a_study_is_blind_until_it_is_closed(blind: Path, runs: list[RunFolder]) -> None:
    who = reviewers(blind)[0]
    who.begin()
    who.sit(any_answer, 3)
    assert "is open, and who looks" in complaint(run("study", "report", blind))
    result = run("study", "export", blind, "--out", blind / "out")
    frame = pd.read_csv(blind / "out/answers.csv")
    assert result.exception is None and len(frame) == 3 and frame["image"].isna().all() and frame["counts"].all()
    assert "bicubic" not in (blind / "out/answers.csv").read_text()
    assert run("study", "close", blind).exception is None
    assert "closed already" in complaint(run("study", "close", blind))
    state = who.state()
    refused = who.post("/api/answer", who.body(state, any_answer(state)))
    assert refused.status_code == 410 and who.state()["closed"]
    key = blind / "key.json"
    key.write_text(key.read_text().replace("bicubic", "bycubic"))
    with pytest.raises(RfbenchError, match="is not the key that"):
        read_key(blind)


@pytest.mark.parametrize("design", ["blind", "paper"])
def test_votes_face_the_system_whatever_its_side(finished: dict[str, Path], design: str) -> None:
    study = read_study(finished[design])
    for system, clarity, parity in (("bicubic", 1.0, 0.0), ("nearest", 0.5, 0.0)):
        for question, expected in (("clarity", clarity), ("parity", parity)):
            shares = {v.share for v in study.counted(question) if v.system == system}
            assert shares == {expected}, (system, question)
    assert all(v.share == (1.0 if v.system == "bicubic" else 0.0) for v in study.counted("between"))
    assert dict(catches(study).values()) == {2: 2} and len(catches(study)) == 3
    assert dict(repeats(study).values()) == {1: 1} or (design == "paper" and set(repeats(study).values()) == {(2, 2)})
    assert not {v.purpose for q in ("clarity", "parity") for v in study.counted(q)} - {"own", "common"}


@pytest.mark.parametrize("design", ["blind", "paper"])
def test_a_report_says_what_was_found(
    finished: dict[str, Path], runs: list[RunFolder], design: str, tmp_path: Path
) -> None:
    study = finished[design]
    found = build(study, runs)
    by = {(j.system, j.question): j for j in found.judged}
    assert by["bicubic", "clarity"].share.value == 1.0 and by["bicubic", "parity"].share.value == 0.0
    assert by["bicubic", "parity"].steps[0] == by["bicubic", "parity"].share.votes
    assert found.validity is not None and found.validity.value == 1.0 and len(found.reviewers) == 3
    assert found.reviewers[0].caught == (2, 2) and found.reviewers[0].median_s == 1.5
    assert found.strengths[0].name == "bicubic"
    assert found.agreement["clarity"].raw == 1.0
    psnr = next(t for t in found.trust if t.metric == "psnr_rgb")
    assert psnr.accuracy is not None and psnr.accuracy.value > 0.9 and psnr.pairs > 0
    text = to_markdown(found)
    for words in ("Parity: SR against HR", "Which metric agrees", "AC1", "scientist", "Bradley-Terry"):
        assert words in text
    assert r"\toprule" in to_latex(found) and "doctorate" in to_methods(found)
    figure = tmp_path / "shares.png"
    result = run("study", "report", study, "--format", "json", "--figure", figure)
    assert result.exception is None and json.loads(result.stdout)["format"] == 1
    with PIL.Image.open(figure) as picture:
        assert picture.size[0] > 800
    cited = run("cite", *(r.path for r in runs), "--study", study)
    assert cited.exception is None and "whose plan was fixed and hashed beforehand" in cited.stdout
    latex = run("cite", *(r.path for r in runs), "--study", study, "--format", "latex")
    assert r"lies within 0.4 to 0.6" in latex.stdout
    assert "has none" in complaint(run("cite", *(r.path for r in runs), "--study", study, "--format", "json"))


def test_votes_are_columns_of_the_table(finished: dict[str, Path], runs: list[RunFolder], tmp_path: Path) -> None:
    table = with_votes(build_table(runs), runs, finished["blind"])
    by = {row.label: row for row in table.rows}
    clarity = [c.metric for c in table.columns].index("clarity")
    assert by["bicubic"].cells[clarity].text == "1.00" and by["bicubic"].cells[clarity].rank == "best"
    assert by["nearest"].cells[clarity].text == "0.50" and by["nearest"].cells[clarity].n > 0
    for write in TABLE_WRITERS.values():
        assert "Clarity" in write(table) or "clarity" in write(table)
    result = run("table", *(r.path for r in runs), "--votes", finished["blind"], "--format", "latex")
    assert result.exception is None and "Clarity" in result.stdout and "Parity" in result.stdout
    made = report_of_runs(runs, max_images=1, votes=finished["blind"])
    j = [m.name for m in made.measures].index("clarity")
    said = [entry.values[made.rows.index("bicubic")][j] for entry in made.entries]
    assert set(said) <= {1.0, None} and said.count(1.0) > 2
    other = two_runs(tmp_path, 6)
    with pytest.raises(NotComparable, match="made of other runs"):
        with_votes(build_table(other), other, finished["blind"])
    with pytest.raises(NotComparable, match="is not one of the runs"):
        trust(read_study(finished["blind"]), other)


def test_an_export_has_every_answer(finished: dict[str, Path], tmp_path: Path) -> None:
    result = run("study", "export", finished["blind"], "--out", tmp_path)
    assert result.exception is None
    long, same = pd.read_csv(tmp_path / "answers.csv"), pd.read_parquet(tmp_path / "answers.parquet")
    assert len(long) == len(same) and set(long["reviewer"]) == {"R01", "R02", "R03"}
    assert long["image"].notna().all() and set(long["purpose"]) == {"own", "common", "repeat", "same", "worse"}
    assert (long["view_elapsed_ms"] == 1500).all() and long["predictions_sha256"].str.len().min() == 129


def test_forgetting_leaves_nothing_of_a_person(blind: Path) -> None:
    one, two, _ = reviewers(blind)
    for who in (one, two):
        who.begin(PROFILE | {"field": f"unmistakable-field-{'one' if who is one else 'two'}"})
        who.sit(any_answer, 4)
    assert "did you mean" in complaint(run("study", "forget", blind, "R1"))
    result = run("study", "forget", blind, "R01", "--yes")
    assert result.exception is None and "R01: 5 entries deleted" in result.stdout
    bytes_left = b"".join(p.read_bytes() for p in blind.glob("answers.sqlite*"))
    assert b"unmistakable-field-one" not in bytes_left and b"unmistakable-field-two" in bytes_left
    status = run("study", "status", blind, "--backup", blind / "copy.sqlite")
    assert "R01: 0 of" in status.stdout and "forgotten" in status.stdout and "R02: 4 of" in status.stdout
    copy = sqlite3.connect(blind / "copy.sqlite")
    assert copy.execute("SELECT COUNT(*) FROM events WHERE reviewer = 'R02'").fetchone() == (5,)
    copy.close()
    assert one.state()["step"] == "profile"  # and may begin anew


def test_wrong_requests_are_one_line(tmp_path: Path, runs: list[RunFolder], blind: Path) -> None:
    folders = [r.path for r in runs]
    assert "two shares around 0.5" in complaint(run("study", "create", tmp_path / "s", *folders, "--margin", "0.6,0.4"))
    assert "expected two numbers" in complaint(run("study", "create", tmp_path / "s", *folders, "--margin", "wide"))
    assert "is not empty" in complaint(run("study", "create", blind, *folders))
    label = runs[1].path.name
    twin = shutil.copytree(runs[1].path, tmp_path / "twin" / label)
    assert f"called '{label}'" in complaint(run("study", "create", tmp_path / "s", *folders, twin))
    assert "nothing to export" in complaint(run("study", "export", blind, "--out", tmp_path))
    run("study", "close", blind)
    assert "closed without an answer" in complaint(run("study", "report", blind))
    assert decode_file(blind / "secret.json", Secret).secret not in run("study", "status", blind).output


# --- statistics -----------------------------------------------------------------------------------------------

_N = np.nan
KRIPPENDORFF = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _N, _N, _N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _N, 3],
    [_N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _N],
])  # fmt: skip


@pytest.mark.parametrize(
    ("level", "expected"), [("nominal", 0.7434), ("ordinal", 0.8154), ("interval", 0.8491), ("ratio", 0.7974)]
)
def test_alpha_is_krippendorff_s(level: str, expected: float) -> None:
    """His table of four observers and twelve units (Content Analysis, ch. 11)."""
    assert alpha(KRIPPENDORFF, level) == pytest.approx(expected, abs=5e-5)  # type: ignore[arg-type]


def test_the_three_coefficients_of_the_paradox() -> None:
    """Three raters, 30 items: 28 unanimous, one two to one, one one to two."""
    ratings = [(f"r{r}", f"i{i:02}", 1.0) for i in range(28) for r in range(3)]
    ratings += [("r0", "i28", 1.0), ("r1", "i28", 1.0), ("r2", "i28", 0.0)]
    ratings += [("r0", "i29", 1.0), ("r1", "i29", 0.0), ("r2", "i29", 0.0)]
    found = agreement(ratings, "nominal")
    assert found is not None and found.items == 30 and found.raters == 3 and found.ratings == 90
    assert found.raw == pytest.approx(0.956, abs=5e-4)
    assert found.kappa == pytest.approx(0.310, abs=5e-4)
    assert found.alpha == pytest.approx(0.318, abs=5e-4)
    assert found.ac1 == pytest.approx(0.952, abs=5e-4)


def test_agreement_without_anything_to_agree_on() -> None:
    assert agreement([("a", "x", 1.0), ("b", "y", 1.0)], "nominal") is None
    same = agreement([("a", "x", 1.0), ("b", "x", 1.0)], "nominal")
    assert same is not None and same.raw == 1.0 and same.alpha is None and same.kappa is None and same.ac1 is None


def test_the_coefficients_are_the_libraries() -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="krippendorff is not installed")
    rng = np.random.default_rng(0)
    values = rng.integers(1, 5, (4, 30)).astype(float)
    values[rng.random(values.shape) < 0.2] = np.nan
    for level in ("nominal", "ordinal", "interval", "ratio"):
        theirs = krippendorff.alpha(values, level_of_measurement=level)
        assert alpha(values, level) == pytest.approx(theirs, abs=1e-12)  # type: ignore[arg-type]
    rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    full = rng.integers(1, 5, (4, 30)).astype(float)
    assert fleiss_kappa(counted(full)) == pytest.approx(rater.fleiss_kappa(counted(full)), abs=1e-12)
    assert raw_agreement(counted(full)) <= 1.0 and gwet_ac1(counted(full)) is not None


def test_shares_have_intervals_of_reviewers_and_scenes() -> None:
    rng = np.random.default_rng(1)
    who = [f"r{i % 6}" for i in range(120)]
    scenes = [f"s{i // 6}" for i in range(120)]
    votes = (rng.random(120) < 0.5).astype(float)
    found = share_of(votes, who, scenes)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert found.reviewers == 6 and found.scenes == 20
    # A reviewer who says the same of everything is one opinion, not twenty.
    stubborn = share_of([float(w in ("r0", "r1", "r2")) for w in who], who, scenes)
    assert stubborn.low is not None and stubborn.high is not None
    assert stubborn.high - stubborn.low > 3 * (found.high - found.low)
    assert share_of(votes[::-1], who[::-1], scenes[::-1]).value == pytest.approx(found.value)
    few = share_of([1.0, 0.0], ["a", "b"], ["s", "t"])
    assert few.low is None and "2 reviewers, an interval needs at least 3" in str(few.reason)
    unanimous = share_of(np.ones(120), who, scenes)
    assert unanimous.high == 1.0 and unanimous.low == pytest.approx(0.5)
    with pytest.raises(ValueError, match="found 0"):
        share_of([], [], [])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.45, 0.55, "on a par"), (0.39, 0.55, "undecided"), (0.2, 0.3, "worse"), (0.55, 0.9, "better"),
     (0.41, 0.49, "on a par"), (0.4, 0.5, "undecided"), (None, None, "undecided")],
)  # fmt: skip
def test_parity_is_equivalence(low: float | None, high: float | None, expected: str) -> None:
    from bench.study.crossed import Share

    assert verdict(Share(0.5, 10, 3, 6, 0.9, low, high), (0.4, 0.6)) == expected


def test_strengths_recover_an_order_and_stay_finite() -> None:
    rng = np.random.default_rng(2)
    true = {"a": 1.0, "b": 0.0, "c": -1.0}
    made = []
    for r in range(6):
        for s in range(20):
            for one, other in (("a", "b"), ("b", "c"), ("a", "c")):
                p = 1 / (1 + np.exp(true[other] - true[one]))
                made.append(Comparison(f"r{r}", f"s{s}", one, other, float(rng.random() < p)))
    found = strengths(made)
    assert [s.name for s in found] == ["a", "b", "c"]
    for s in found:
        assert s.low is not None and s.high is not None and s.low < true[s.name] < s.high
        assert abs(s.value - true[s.name]) < 0.35
    separated = strengths([Comparison(f"r{i % 3}", f"s{i}", "a", "b", 1.0) for i in range(12)])
    assert all(np.isfinite([s.value, s.low, s.high]).all() and abs(s.value) < 5 for s in separated)
    turned = strengths([Comparison(c.reviewer, c.scene, c.b, c.a, 1.0 - c.share) for c in made])
    assert [s.value for s in turned] == pytest.approx([s.value for s in found], abs=1e-6)
