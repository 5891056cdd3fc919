"""Captions: rules, the loop that freezes a file, endpoints that misbehave, local models, protocols that read them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner, Result

from bench.captions.ask import NoAnswer, cleaned
from bench.captions.checks import CLAUSES, Rules
from bench.captions.endpoint import Endpoint
from bench.captions.pictures import OUTLINE, png_of, show
from bench.captions.prompt import PAPER, prompt_of
from bench.cli import cli
from bench.core.errors import ItemError, NotComparable, RfbenchError
from bench.data.captions import captions_of, images_fingerprint, shuffled, with_captions
from bench.data.dataset import FolderDataset, Record
from bench.data.embedded import FOLDER, EmbeddedScenes
from bench.protocols.find import resolve_protocol
from tests import chat_server
from tests.chat_server import Server, serving
from tests.commands import Started, start
from tests.conftest import write_dataset
from tests.scored_runs import images, numbers, scored_run
from tests.small_vlm import write_vlm

KEY = "sk-this-is-a-secret-0123456789"
PICTURE = png_of(np.zeros((8, 8, 3), np.uint8))


def run(*words: object, env: dict[str, str] | None = None) -> Result:
    """The command line, in this process; exit codes as ``main`` gives them."""
    return CliRunner().invoke(cli, [str(w) for w in words], standalone_mode=False, env=env)


def complaint(result: Result) -> str:
    assert isinstance(result.exception, RfbenchError), result.exception or result.output
    return str(result.exception)


@pytest.fixture
def server() -> Server:
    with serving() as found:
        yield found


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """The embedded scenes as a dataset folder of one's own."""
    return Path(shutil.copytree(FOLDER, tmp_path / "scenes"))


def quick(server: Server, **more: object) -> Endpoint:
    waits: list[float] = []
    found = Endpoint(server.address, "m", sleep=waits.append, **({"timeout_s": 2.0, "retries": 3} | more))  # type: ignore[arg-type]
    found.waits = waits  # type: ignore[attr-defined]
    return found


# --- rules ----------------------------------------------------------------------------------------------------

BROADER = ("place", "sensor", "number", "duplicate", "date")  # what breaks these may break another as well
GOOD = "A pale bowl-shaped thaw slump at the upper left cuts into mossy green tundra above a dark lake."


@pytest.mark.parametrize(
    ("clause", "text"),
    [
        ("length", "A green slump on a hillside."),
        ("length", GOOD + " " + GOOD + " " + GOOD + " " + GOOD),
        ("control", GOOD.replace(" cuts", "\ncuts")),
        ("control", f"**{GOOD}**"),
        ("control", GOOD.replace("pale", "pa\u200ble")),
        ("script", GOOD.replace("a dark lake", "a dark озеро lake")),
        ("self_reference", f"This image shows a lake. {GOOD}"),
        ("sensor", GOOD.replace("A pale", "Seen by Sentinel, a pale")),
        ("place", GOOD.replace("green tundra", "green tundra of Siberia")),
        ("place", GOOD.replace("a dark lake", "the dark Batagay lake")),
        ("date", GOOD.replace("above", "in early July above")),
        ("number", GOOD.replace("a dark lake", "a dark lake 40 m away")),
        ("number", GOOD.replace("a dark lake", "a dark lake some metres away")),
        ("hedge", GOOD.replace("cuts into", "seems to cut into")),
        ("tense", GOOD.replace("cuts into", "was cut into")),
        ("feature", "Mossy green tundra lies above a dark lake with small ponds and pale stones around it."),
        ("colour", "A bowl-shaped thaw slump at the upper left cuts into mossy tundra above a deep lake."),
        ("setting", "A pale bowl-shaped thaw slump at the upper left cuts into mossy green ground and moss."),
        ("direction", GOOD.replace("upper left", "upper right")),
        ("direction", GOOD.replace("upper left", "bottom")),
        ("duplicate", GOOD.upper()),
    ],
)
def test_a_broken_rule_is_named(clause: str, text: str) -> None:
    mask = np.zeros((100, 100), bool)
    mask[5:20, 10:25] = True
    rules = Rules()
    assert rules.failures(GOOD, mask) == []
    others = {"other": GOOD} if clause == "duplicate" else {}
    found = {f.clause for f in rules.failures(text, mask, others)}
    assert clause in found and (found == {clause} or clause in BROADER), found
    assert clause not in {f.clause for f in Rules(skip=[clause]).failures(text, mask, others)}


def test_directions_are_those_of_the_feature_alone() -> None:
    mask = np.zeros((100, 100), bool)
    mask[5:20, 10:25] = True
    text = "A pale thaw slump cuts into mossy green tundra, with a dark lake at the lower right of the plain."
    assert Rules().failures(text, mask) == []
    assert Rules().failures(text.replace("thaw slump", "path"), np.zeros((9, 9), bool)) == []  # nothing to name


def test_the_embedded_captions_keep_the_rules() -> None:
    result = run("captions", "check", "scenes")
    assert result.return_value == 0 and not result.stdout
    assert "24 captions, 0 break a rule" in result.stderr and "clip_tokens is not checked" in result.stderr


def test_tokens_are_counted_where_there_are_tokenizers(tmp_path: Path) -> None:
    vlm = write_vlm(tmp_path / "vlm")
    for name in ("tokenizer", "tokenizer_3"):
        shutil.copytree(vlm, tmp_path / "sd3" / name, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    rules = Rules(tokenizers=tmp_path / "sd3")
    long = ", ".join(["green tundra"] * 27)  # 54 words, 80 tokens with commas
    assert [f.clause for f in rules.failures(long, None)] == ["clip_tokens"]
    assert not rules.left_out and not rules.failures(GOOD, None)
    with pytest.raises(RfbenchError, match="found no folder 'tokenizer'"):
        Rules(tokenizers=tmp_path)


def test_unknown_clauses_are_refused_and_the_prompt_states_its_rules() -> None:
    with pytest.raises(RfbenchError, match="did you mean colour"):
        Rules(skip=["color"])
    assert "thirty words" in PAPER and set(CLAUSES) >= {"feature", "colour", "setting"}
    assert cleaned(' "A scar." \n') == "A scar." and cleaned('"A" and "B"') == '"A" and "B"'


def test_a_prompt_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Describe roofs.\n")
    found = prompt_of(str(tmp_path / "mine.txt"), "outline")
    assert found.system == "Describe roofs." and "red outline" in found.ask and found.name == "mine.txt"
    assert found.sha256 != prompt_of(str(tmp_path / "mine.txt"), "none").sha256
    (tmp_path / "empty.txt").write_text(" \n")
    for bad in ("empty.txt", "absent.txt"):
        with pytest.raises(RfbenchError, match="--prompt"):
            prompt_of(str(tmp_path / bad), "none")


# --- pictures -------------------------------------------------------------------------------------------------


def test_pictures_have_the_size_the_mask_and_no_metadata() -> None:
    dataset = EmbeddedScenes()
    record = dataset.records("test")[0]
    pair = dataset.load(record)
    plain, outlined, second = (show(pair, "hr", "declared", mask, 400) for mask in ("none", "outline", "second"))
    opened = [PIL.Image.open(__import__("io").BytesIO(p)) for p in second.pictures]
    assert [i.size for i in opened] == [(400, 400), (400, 400)] and not opened[0].info
    assert second.pictures[0] == plain.pictures[0] and set(np.unique(opened[1])) == {0, 255}
    red = np.asarray(PIL.Image.open(__import__("io").BytesIO(outlined.pictures[0])))
    drawn = (red == OUTLINE).all(-1)
    mask = np.asarray(opened[1])[..., 0] > 0
    assert drawn.any() and not (drawn & mask).any()  # around the feature, nothing of it is covered
    assert PIL.Image.open(
        __import__("io").BytesIO(show(pair, "lr", "percentile[2,98]", "none", 320).pictures[0])
    ).size == (320, 320)
    with pytest.raises(ItemError, match="no HR image"):
        show(dataset.load(record, ("lr",)), "hr", "declared", "none", 100)


# --- endpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (chat_server.fails(500), "HTTP 500"),
        (chat_server.fails(429, Retry_After=7), "HTTP 429"),
        (chat_server.sends(b"<html>starting</html>"), "no chat completion"),
        (chat_server.sends(b'{"choices": []}'), "no chat completion"),
        (chat_server.sends(b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
        (chat_server.sends(b"[" * 100_000), "no chat completion"),
        (chat_server.says(GOOD, finish="length"), "cut at 300 tokens"),
        (chat_server.cut, "cut off"),
        (chat_server.drips, "no answer within 0.5 s"),
        (chat_server.hangs, "no answer within 0.5 s"),
    ],
)
def test_what_may_pass_is_tried_again(server: Server, bad: chat_server.Answer, says: str) -> None:
    endpoint = quick(server, timeout_s=0.5)
    server.answers = [bad, bad, chat_server.says(GOOD)]
    found = endpoint.ask(prompt_of("paper", "none"), [PICTURE], 0)
    assert found.text == GOOD and found.model == "tiny-vlm-2026" and found.tokens_in == 1000
    assert len(server.asked) == 3 and len(endpoint.waits) == 2  # type: ignore[attr-defined]
    if "429" in says:
        assert endpoint.waits == [7.0, 7.0]  # type: ignore[attr-defined]
    else:
        assert 0.7 < endpoint.waits[0] < endpoint.waits[1] < 2.6  # type: ignore[attr-defined]
    server.answers = [bad]
    with pytest.raises(NoAnswer, match=says):
        quick(server, timeout_s=0.5, retries=0).ask(prompt_of("paper", "none"), [PICTURE], 0)


def test_what_will_not_pass_is_said_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFBENCH_CAPTION_KEY", KEY)
    for answer, says in (
        (chat_server.repeats_the_key(401), "check the key"),
        (chat_server.fails(404), "check the address"),
        (chat_server.fails(302, Location="http://127.0.0.1:9/v1"), "sends elsewhere"),
        (chat_server.sends(b" " * 5_000_000), "sends more than"),
    ):
        server.answers, server.asked = [answer], []
        with pytest.raises(RfbenchError, match=says) as caught:
            quick(server).ask(prompt_of("paper", "none"), [PICTURE], 0)
        assert KEY not in str(caught.value) and len(server.asked) == 1
    assert server.asked[0][1] == f"Bearer {KEY}"
    server.answers = [chat_server.says(f"My key is {KEY}.")]
    assert KEY not in quick(server).ask(prompt_of("paper", "none"), [PICTURE], 0).text


def test_a_key_is_never_sent_in_clear_or_taken_from_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFBENCH_CAPTION_KEY", KEY)
    with pytest.raises(RfbenchError, match="in clear") as caught:
        Endpoint("http://example.org/v1", "m")
    assert KEY not in str(caught.value)
    for address in ("https://me:secret@example.org/v1", "https://example.org/v1?key=secret"):
        with pytest.raises(RfbenchError, match="more than host and path") as caught:
            Endpoint(address, "m")
        assert "secret" not in str(caught.value)
    monkeypatch.setenv("RFBENCH_CAPTION_KEY", "two\nlines")
    with pytest.raises(RfbenchError, match="no key has"):
        Endpoint("https://example.org/v1", "m")


def test_a_question_holds_the_prompt_the_picture_and_a_seed_of_its_attempt(server: Server) -> None:
    quick(server, seed=5).ask(prompt_of("paper", "second"), [PICTURE, PICTURE], 2)
    path, key, question = server.asked[0]
    assert path == "/v1/chat/completions" and key is None
    system, user = question["messages"]
    assert system["content"] == PAPER and [c["type"] for c in user["content"]] == ["text", "image_url", "image_url"]
    assert question["temperature"] == 0 and question["seed"] == 7 and question["model"] == "m"


# --- files ----------------------------------------------------------------------------------------------------


def test_captions_are_frozen_with_a_card_and_read_by_a_run(scenes: Path, server: Server, tmp_path: Path) -> None:
    words = ("caption", scenes, "--model", f"{server.address}:tiny", "--name", "tiny", "--at-once", 4, "--price", "1,2",
             "--side-px", 128)  # fmt: skip
    result = run(*words, env={"RFBENCH_CAPTION_KEY": KEY})
    assert result.return_value == 0, result.output + str(result.exception)
    assert "24 images x about" in result.stderr and "24 captions, 0 images without (24000 tokens in" in result.stdout
    card = json.loads((scenes / "captions/tiny.json").read_text())
    assert card["csv_sha256"] == hashlib.sha256((scenes / "captions/tiny.csv").read_bytes()).hexdigest()
    assert card["models_reported"] == ["tiny-vlm-2026"] and card["prompt"]["system"] == PAPER
    assert len(card["answers"]) == 24 and card["pictures"]["source"] == "hr"
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) + result.output.encode()
    assert KEY.encode() not in everything and not list((scenes / "captions").glob(".*"))
    assert all(key == f"Bearer {KEY}" for _, key, _ in server.asked)
    assert "frozen once" in complaint(run(*words))

    runs = tmp_path / "runs"
    for captions in ("tiny", "shuffled", "dataset"):
        done = run("run", "--model", "bicubic", "--data", scenes, "--protocol", f"paired:captions={captions}",
                   "--metrics", "psnr_rgb", "--limit", 2, "--workers", 0, "--out", runs / captions)  # fmt: skip
        assert done.return_value == 0, done.output + str(done.exception)
        assert f"captions={captions}" in done.stdout or captions == "dataset"
    plans = {p.parents[1].name: json.loads(p.read_text())["plan"] for p in runs.glob("*/*/run.json")}
    prints = {name: plan["data"]["fingerprint"] for name, plan in plans.items()}
    assert len(set(prints.values())) == 3 and len({images_fingerprint(p) for p in prints.values()}) == 1
    exported = run("export", runs / "tiny", "--out", tmp_path / "pictures")
    assert exported.exception is None and len(list((tmp_path / "pictures").rglob("*.png"))) == 2
    refused = run("compare", runs / "tiny", runs / "dataset")
    assert isinstance(refused.exception, NotComparable)

    (scenes / "captions/odd.csv").write_text("id,text\na,b\n")
    odd = card | {"csv_sha256": hashlib.sha256(b"id,text\na,b\n").hexdigest()}
    (scenes / "captions/odd.json").write_text(json.dumps(odd))
    with pytest.raises(RfbenchError, match="is no caption file: 'caption'"):
        captions_of(FolderDataset(scenes), "odd")
    path = scenes / "captions/tiny.csv"
    path.write_text(path.read_text().replace("thaw", "mud"))
    assert "is not the file that its card" in complaint(
        run("run", "--model", "bicubic", "--data", scenes, "--protocol", "paired:captions=tiny", "--out", runs / "x")
    )


def test_broken_rules_are_tried_again_then_a_reason(scenes: Path, server: Server) -> None:
    server.answers = [chat_server.says("This image shows mud."), chat_server.says("This image shows mud."),
                      chat_server.says(GOOD.replace(" at the upper left", "")), chat_server.says("no")]  # fmt: skip
    words = ("caption", scenes, "--model", f"{server.address}:tiny", "--name", "bad", "--side-px", 128)
    result = run(*words, "--limit", 2)
    assert result.return_value == 0 and "not frozen because of --limit" in result.stderr
    assert not (scenes / "captions/bad.csv").exists() and "scene_0000: A pale" in result.stdout
    assert "scene_0000: self_reference: 'This image'" in result.stderr
    assert "scene_0001: no caption, 3 attempts broke a rule, the last: length: 1 words" in result.stderr
    asked = len(server.asked)
    result = run(*words)
    assert result.return_value == 0 and len(server.asked) == asked + 22 * 3  # what was answered is not asked again
    found = captions_of(FolderDataset(scenes), "bad")
    assert len(found.texts) == 1 and len(found.reasons) == 23
    dataset = with_captions(FolderDataset(scenes), "bad")
    first, second = dataset.records("test")[:2]
    assert dataset.load(first).record.caption.startswith("A pale")
    with pytest.raises(ItemError, match="3 attempts broke a rule"):
        dataset.load(second)


def test_a_server_that_is_down_leaves_images_open(scenes: Path, server: Server) -> None:
    server.answers = [chat_server.good, chat_server.good, chat_server.fails(503)]
    words = (
        "caption",
        scenes,
        "--model",
        f"{server.address}:tiny",
        "--name",
        "later",
        "--retries",
        0,
        "--side-px",
        128,
    )
    result = run(*words)
    assert result.return_value == 1 and "2 captions, 0 images without, 22 open" in result.stderr
    assert not (scenes / "captions/later.csv").exists()
    other = complaint(run(*words, "--side-px", 64))
    assert "begun with other options" in other and "side_px: it has 128, asked for 64" in other
    server.answers, server.asked = [chat_server.good], []
    assert run(*words).return_value == 0 and len(server.asked) == 22


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_kills_lose_nothing_and_show_no_key(scenes: Path, server: Server) -> None:
    def slow(handler: chat_server.Handler) -> None:
        time.sleep(0.15)
        chat_server.good(handler)

    server.answers = [slow]

    def begin() -> Started:
        return start("caption", str(scenes), "--model", f"{server.address}:tiny", "--name", "killed",
                     "--side-px", "128", env={"RFBENCH_CAPTION_KEY": KEY})  # fmt: skip

    kills = 0
    for goal in (3, 9, 15):
        process = begin()
        while len(list((scenes / "captions/.killed").glob("scene*.json"))) < goal and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    process = begin()
    second = begin()  # one of the two is told that another is at work, or comes after it was done
    codes = sorted((process.wait(), second.wait()))
    said = process.stdout + process.stderr + second.stdout + second.stderr
    assert codes == [0, 2] and ("another process writes captions" in said or "frozen once" in said), said
    assert KEY not in said
    assert len(captions_of(FolderDataset(scenes), "killed").texts) == 24
    assert len(server.asked) <= 24 + kills


def test_a_local_model_captions_the_scenes(scenes: Path, tmp_path: Path) -> None:
    vlm = write_vlm(tmp_path / "vlm")
    skip = [w for c in ("duplicate", "feature", "colour", "setting", "direction", "tense") for w in ("--skip-check", c)]
    words = ("caption", scenes, "--model", vlm, "--max-tokens", 14, "--device", "cpu", "--side-px", 56, *skip)
    for name, source in (("vlm", "hr"), ("vlm-lr", "lr")):
        result = run(*words, "--name", name, "--source", source)
        assert result.return_value == 0, result.output + str(result.exception)
    found, of_lr = (captions_of(FolderDataset(scenes), name) for name in ("vlm", "vlm-lr"))
    assert len(found.texts) + len(found.reasons) == 24 and found.texts and found.texts != of_lr.texts
    assert {"weights_sha256", "chat_template_sha256", "files_sha256"} <= found.card.captioner.keys()
    assert str(tmp_path) not in (scenes / "captions/vlm.json").read_text()
    again = run(*words, "--name", "again")
    assert again.return_value == 0
    assert (scenes / "captions/again.csv").read_bytes() == (scenes / "captions/vlm.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "shuffled"), "one of the protocol's own words"),
        (("--name", "../x"), "use letters"),
        (("--source", "lr", "--mask", "outline"), "must not know it"),
        (("--attempts", 0), "--attempts: found 0"),
        (("--side-px", 0), "--side-px: found 0"),
        (("--price", "cheap"), "--price"),
        (("--model", "http://127.0.0.1:1/v1"), "the model's name too"),
        (("--model", "http://127.0.0.1:1"), "the model's name too"),
        (("--model", "nowhere"), "found no config.json"),
        (("--stretch", "bright"), "expected fixed"),
        (("--split", "none"), "no images in the split"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, words: tuple[object, ...], says: str) -> None:
    data = write_dataset(tmp_path / "data", count=2)
    base = {"--name": "n", "--model": "http://127.0.0.1:1/v1:m"}
    given = {k: v for k, v in base.items() if k not in words}
    flat = [w for pair in given.items() for w in pair]
    assert says in complaint(run("caption", data, *flat, *words))


def test_a_model_s_name_may_hold_colons_and_slashes(scenes: Path, server: Server) -> None:
    result = run("caption", scenes, "--model", f"{server.address}:org/vision:11b", "--name", "n", "--limit", 1)
    assert result.return_value == 0 and server.asked[0][2]["model"] == "org/vision:11b"


def test_a_dry_run_asks_nothing(scenes: Path, server: Server) -> None:
    result = run("caption", scenes, "--model", f"{server.address}:m", "--name", "n", "--price", "1,10", "--dry-run")
    assert result.return_value == 0 and not server.asked and not (scenes / "captions").exists()
    assert "at most" in result.stderr and "a million" in result.stderr


# --- protocols ------------------------------------------------------------------------------------------------


def test_shuffled_captions_are_a_permutation_without_a_fixed_scene() -> None:
    records = [Record(f"i{i:02}", f"s{i // 3}", caption=f"caption {i}") for i in range(12)]
    found = shuffled(records)
    assert sorted(found.values()) == sorted(r.caption for r in records)
    scene_of = {r.caption: r.scene_id for r in records}
    assert all(scene_of[found[r.id]] != r.scene_id for r in records)
    assert shuffled(records[::-1]) == found
    with pytest.raises(RfbenchError, match="one scene has 3 of the 5"):
        shuffled(records[:5])
    with pytest.raises(RfbenchError, match="the dataset has no caption"):
        shuffled([Record("a", "a")])


def test_a_protocol_reads_no_other_captions_than_it_says(scenes: Path) -> None:
    dataset = FolderDataset(scenes)
    pair = dataset.load(dataset.records("test")[0])
    with pytest.raises(ValueError, match="reads the captions 'shuffled', the record has 'dataset'"):
        resolve_protocol("paired:captions=shuffled").prepare(pair)
    other = with_captions(dataset, "shuffled")
    moved = resolve_protocol("paired:captions=shuffled").prepare(other.load(other.records("test")[0]))
    assert moved.caption and moved.caption != pair.record.caption
    with pytest.raises(ValueError, match="reads the captions 'dataset'"):
        resolve_protocol("paired").prepare(other.load(other.records("test")[0]))
    with pytest.raises(RfbenchError, match="use letters"):
        resolve_protocol("paired:captions=a b")
    with pytest.raises(RfbenchError, match="unknown captions 'shufled'; did you mean shuffled"):
        with_captions(dataset, "shufled")


def test_what_captions_are_worth(tmp_path: Path) -> None:
    base = numbers(24, 1, 20.0)
    better = {i: v + 1.0 + 0.1 * float(v) for i, v in base.items() if v is not None}
    protocol = {
        "name": "paired",
        "normalisation": "declared",
        "quantise": 8,
        "border_px": 0,
        "policy": "post",
        "scale": None,
    }

    def one(captions: str, scores: dict[str, float | None], fingerprint: str) -> None:
        scored_run(
            tmp_path, captions, {"psnr_rgb": scores, "de00": base}, label="m",
            model={"label": "m", "options": {}, "spec": {"supports_prompt": True}},
            protocol=protocol | {"captions": captions},
            data={"name": "scenes", "split": "test", "fingerprint": fingerprint, "ids": images(24)},
        )  # fmt: skip

    one("none", base, "f" * 64)
    one("tiny", better, "f" * 64 + "+captions:1234")
    one("shuffled", base, "f" * 64 + "+captions:5678")
    result = run("captions", "compare", tmp_path)
    assert result.exception is None, result.exception
    lines = [line for line in result.stdout.splitlines() if line.startswith("| PSNR | tiny")]
    assert len(lines) == 1 and lines[0].endswith("| tiny |")
    assert "| PSNR | shuffled" in result.stdout and "with none" in result.stdout
    rows = json.loads(run("captions", "compare", tmp_path, "--format", "json").stdout)["rows"]
    assert {(r["metric"], r["captions"]) for r in rows} == {
        (m, c) for m in ("psnr_rgb", "de00") for c in ("tiny", "shuffled")
    }
    for name, words in (("tiny", "captions: the frozen file tiny"), ("shuffled", "another scene's (a control)")):
        assert words in run("table", tmp_path / name).stdout
    assert "did you mean" in complaint(run("captions", "compare", tmp_path, "--against", "tiney"))
    one("other", base, "e" * 64)
    assert isinstance(run("captions", "compare", tmp_path).exception, NotComparable)
