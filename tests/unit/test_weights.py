"""The list of weights, its commands, and what runs make of an empty, a partial and a full folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench import weights
from bench.cli.run import command as run_command
from bench.cli.weights import command
from bench.core import registry
from bench.core.errors import RfbenchError, Unavailable
from bench.models import Adapter, Batch, ModelSpec, Prediction
from bench.models.call import Model
from bench.weights import WeightsFile, listing, transfer
from tests.conftest import write_dataset
from tests.file_server import CONTENT, error, other, serving
from tests.runs import planned
from tests.runs import run as run_models

MINE = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "licence": "CC0", "source": "https://x/y"}


class Flat(Adapter):
    """An even grey: the first byte of its weights over 1000."""

    def load(self, device: str, dtype: str) -> None:
        self.grey = self.weights_path("mine-x4.pth").read_bytes()[0] / 1000

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(mean=np.full((len(batch.ids), *batch.size, 3), self.grey, np.float32))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that nothing of this machine is found; returns its weights folder, which is not there yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    return tmp_path / "home" / ".cache" / "rfbench" / "weights"


@pytest.fixture(autouse=True)
def none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list without what the models of this package add, which grows with every system."""
    names = registry.names
    monkeypatch.setattr(registry, "names", lambda kind: [] if kind == "models" else names(kind))


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, none_of_ours: None) -> dict[str, ModelSpec]:
    """A registry of models that a test fills; ``mine`` is in it."""
    specs = {"mine": ModelSpec(name="mine", adapter=f"{__name__}:Flat", weights={"mine-x4.pth": MINE})}
    load, names, points = registry.load, registry.names, registry.points
    monkeypatch.setattr(registry, "load", lambda k, n: specs[n] if k == "models" and n in specs else load(k, n))
    monkeypatch.setattr(registry, "names", lambda k: [*names(k), *(specs if k == "models" else ())])
    monkeypatch.setattr(registry, "points", lambda k: {**points(k), **(specs if k == "models" else {})})
    return specs


@pytest.fixture
def short_list(monkeypatch: pytest.MonkeyPatch) -> dict[str, WeightsFile]:
    """A list of two small files in place of the committed one, for the metrics lpips_alex and dists."""
    content = {"alexnet-owt-7be5be79.pth": CONTENT, "vgg16-397923af.pth": CONTENT[::-1]}
    entries = {
        file: WeightsFile(file, len(c), hashlib.sha256(c).hexdigest(), "BSD-3-Clause", f"https://example.org/{file}")
        for file, c in content.items()
    }
    carried = {f: e for f, e in weights.listed().items() if e.package_path}
    entries |= carried
    monkeypatch.setattr(listing, "_committed", lambda: entries)
    return entries


ALEXNET, VGG16 = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"


def call(*words: str) -> Result:
    done = CliRunner().invoke(command, words, standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, RfbenchError):
        raise done.exception
    return done


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_committed_list_is_whole() -> None:
    entries = weights.listed()
    assert len(entries) == 11
    for file, entry in entries.items():
        assert entry.source.startswith("https://") and entry.licence and entry.file == file
        prefix = file.rpartition("-")[2].partition(".")[0]
        if len(prefix) == 8 and re.fullmatch("[0-9a-f]{8}", prefix):
            assert entry.sha256.startswith(prefix), "the hash in a file's name is another one"
    assert {f: e.sha256 for f, e in entries.items() if len(e.sha256) < 64} == {
        "MANIQA_PIPAL-ae6d356b.pth": "ae6d356b",  # all that was published
        "dinov2_vitl14_pretrain.pth": "",  # none was: the first that is fetched is recorded
    }
    assert entries["ViT-L-14-336px.pt"].sha256 in entries["ViT-L-14-336px.pt"].source
    needed = weights.users()
    assert set(entries) == set(needed), "every file of the list is of some metric, and the other way round"
    assert needed[VGG16].metrics == ("dists", "lpips_vgg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 0}, "bytes: found 0, expected a whole number >= 1"),
        ({"bytes": "12"}, "bytes: found '12', expected a whole number"),
        ({"sha256": "abc"}, "found sha256 'abc', expected 64 hex digits"),
        ({"sha256": "Z" * 64}, "expected 64 hex digits"),
        ({"licence": None}, "licence: found null, expected a text"),
        ({"size": 3}, "unknown field 'size'"),
        ({"source": ...}, "the field 'source' is missing"),
    ],
)
def test_what_a_model_lists_is_checked(models: Any, change: dict[str, Any], message: str) -> None:
    fields = {k: v for k, v in (MINE | change).items() if v is not ...}
    models["mine"] = dataclasses.replace(models["mine"], weights={"mine-x4.pth": fields})
    with pytest.raises(RfbenchError, match=rf"model mine, weights .?mine-x4.pth.?: .*{message}"):
        Model("mine")
    with pytest.warns(UserWarning, match="weights of the model mine are left out"):
        assert set(weights.catalogue()) == set(weights.listed())  # and the others are still listed


@pytest.mark.parametrize("file", ["../up.pth", "a/b.pth", ".hidden", "line\nbreak", "", "ünicode.pth", "x" * 200])
def test_names_that_lead_elsewhere_are_refused(models: Any, file: str) -> None:
    models["mine"] = dataclasses.replace(models["mine"], weights={file: MINE})
    with pytest.raises(RfbenchError, match="expected a plain file name") as caught:
        Model("mine")
    assert "\n" not in str(caught.value)


def test_one_name_is_one_file(models: Any) -> None:
    models["mine"] = dataclasses.replace(models["mine"], weights={ALEXNET: MINE})
    with pytest.raises(RfbenchError, match="the list has another file of that name"):
        Model("mine")
    listed = weights.listed()[ALEXNET]
    same = {k: v for k, v in msgspec.structs.asdict(listed).items() if k != "file"}
    models["mine"] = dataclasses.replace(models["mine"], weights={ALEXNET: same})
    assert weights.users()[ALEXNET] == weights.Users(("lpips_alex",), ("mine",))
    models["mine"] = dataclasses.replace(models["mine"], weights={"a.pth": MINE})
    models["yours"] = ModelSpec(name="yours", adapter="", weights={"a.pth": MINE | {"bytes": 7}})
    with pytest.warns(UserWarning, match=r"different files called a\.pth; that of yours is left out"):
        assert weights.catalogue()["a.pth"].bytes == len(CONTENT)


# --- where files are found --------------------------------------------------------------------------------------------


def test_the_right_file_is_found_behind_a_wrong_one(
    home: Path, tmp_path: Path, short_list: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=rf"weights missing: {ALEXNET} \(320 kB\); 'rfbench weights fetch {ALEXNET}'"):
        weights.find(ALEXNET)
    given, named = tmp_path / "given", tmp_path / "named"
    for folder in (given, named, home):
        folder.mkdir(parents=True)
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(named))
    (given / ALEXNET).write_bytes(b"x")
    with pytest.raises(Unavailable, match=rf"weights wrong: {ALEXNET} has the sha256 .*'rfbench weights fetch"):
        weights.find(ALEXNET, given)
    for folder in (home, named, given):  # later ones come first
        (folder / ALEXNET).write_bytes(CONTENT)
        assert weights.find(ALEXNET, given) == folder / ALEXNET
    (given / ALEXNET).write_bytes(b"x")
    assert weights.find(ALEXNET, given) == named / ALEXNET
    assert weights.target(given) == given and weights.target(None) == named
    with pytest.raises(RfbenchError, match="did you mean alexnet"):
        weights.find("alexnet-owt.pth")
    with pytest.raises(RfbenchError, match="is not a folder"):
        weights.find(ALEXNET, tmp_path / "nowhere")


def test_a_change_is_seen(home: Path, short_list: Any) -> None:
    home.mkdir(parents=True)
    (home / ALEXNET).write_bytes(CONTENT)
    weights.find(ALEXNET)
    (home / ALEXNET).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(Unavailable, match="weights wrong"):
        weights.find(ALEXNET)


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_model_gets_its_verified_file(home: Path, models: Any, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", count=1)
    request = dict(models=("mine",), data=str(data), metrics=("psnr_rgb",), workers=0, out=tmp_path / "out")
    for content, message in ((None, "weights missing: mine-x4.pth"), (b"x", "weights wrong: mine-x4.pth")):
        if content:
            home.mkdir(parents=True)
            (home / "mine-x4.pth").write_bytes(content)
        with pytest.raises(RfbenchError, match=rf"model mine: {message}.*rfbench weights fetch --models mine"):
            planned(**request)
        assert not (tmp_path / "out").exists()
    (home / "mine-x4.pth").rename(home / "other")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine-x4.pth").write_bytes(CONTENT)
    plan = planned(**request, weights_dir=elsewhere)
    (folder,) = run_models(**request, weights_dir=elsewhere).folders
    arrays, _ = folder.predictions.read("im0")
    assert (arrays["mean"] == np.float32(CONTENT[0] / 1000)).all()
    assert plan.runs["mine"].plan.model.spec["weights"] == {"mine-x4.pth": MINE["sha256"]}


def test_an_adapter_opens_only_what_it_listed(home: Path, models: Any) -> None:
    home.mkdir(parents=True)
    (home / "other.pth").write_bytes(CONTENT)
    model = Model("mine")
    with pytest.raises(RfbenchError, match=r"unknown weights file of model mine 'other\.pth'"):
        model.adapter.weights_path("other.pth")
    with pytest.raises(RfbenchError, match="for an adapter's load"):
        Flat().weights_path("mine-x4.pth")


# --- the commands -----------------------------------------------------------------------------------------------------


def test_ls_says_where_each_file_is(home: Path, models: Any, short_list: Any) -> None:
    home.mkdir(parents=True)
    (home / ALEXNET).write_bytes(CONTENT)
    (home / VGG16).write_bytes(b"short")
    done = call("ls", "--wide")
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert (
        lines[ALEXNET].split()[3:5] == ["found", str(home)]
        and "320 kB" in lines[ALEXNET]
        and "lpips_alex" in lines[ALEXNET]
    )
    assert "wrong size" in lines[VGG16] and str(home) in lines[VGG16] and "dists lpips_vgg" in lines[VGG16]
    assert "the package lpips" in lines["LPIPS_v0.1_alex-df73285e.pth"]
    assert "missing" in lines["mine-x4.pth"] and lines["mine-x4.pth"].endswith("mine")
    assert "gets the 2 that are not here (640 kB)" in done.stderr
    rows = {row["file"]: row for row in json.loads(call("ls", "--json").stdout)}
    assert rows["mine-x4.pth"] == {
        "file": "mine-x4.pth", **MINE, "size": "320 kB", "sha256_is": "published", "package": None, "metrics": [],
        "models": ["mine"], "state": "missing", "path": None,
    }  # fmt: skip
    assert rows[ALEXNET]["state"] == "found" and rows[ALEXNET]["path"] == str(home / ALEXNET)


@pytest.fixture
def served(short_list: dict[str, WeightsFile], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The short list with a server on this machine as its source."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "_PAUSE_S", 0.0)
    with serving() as server:
        for file, entry in short_list.items():
            if not entry.package_path:
                short_list[file] = msgspec.structs.replace(entry, source=f"{server.address}/{file}")
        yield server


def test_fetch_shows_sizes_fetches_and_says_so(home: Path, served: Any) -> None:
    done = call("fetch", "--metrics", "lpips_alex,psnr_rgb")
    assert done.return_value == 0 and done.exception is None
    assert f"{ALEXNET}: fetched into {home}\n" in done.stdout
    assert "LPIPS_v0.1_alex-df73285e.pth: is in the package lpips\n" in done.stdout
    assert "320 kB  BSD-3-Clause  http://127.0.0.1" in done.stderr
    assert f"1 of 2 files, 320 kB, are to be brought into {home}" in done.stderr
    assert (home / ALEXNET).read_bytes() == CONTENT
    again = call("fetch", ALEXNET)
    assert f"{ALEXNET}: is in {home}\n" in again.stdout and "0 of 1 files, 0 B, are to be" in again.stderr
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("--metrics", "modern"), ("dinov2_vitl14_pretrain.pth", "ViT-L-14-336px.pt")),
        (("modern",), ("dinov2_vitl14_pretrain.pth", "ViT-L-14-336px.pt")),
        (("--metrics", "lpips_alex_reg"), (ALEXNET, "LPIPS_v0.1_alex-df73285e.pth")),
        (("--metrics", "opensr,style,task:slumps-tiny,task_iou:slumps-tiny"), ()),
    ],
)
def test_fetch_understands_the_names_of_run(home: Path, tmp_path: Path, words: tuple[str, ...], files: Any) -> None:
    (tmp_path / "stick").mkdir()
    done = call("fetch", *words, "--from", str(tmp_path / "stick"))
    assert all(f"  {file} " in done.stderr for file in files)
    assert f"{len(files)} files, " in done.stderr if files else done.stderr == "these need no weights\n"
    beside = "not among these: pyiqa:topiq_fr, pyiqa:afine_fr, pyiqa:musiq, pyiqa:clipiqa+: "
    assert (beside in done.stderr) == ("modern" in words)


def test_fetch_goes_on_after_a_file_that_fails(home: Path, served: Any) -> None:
    served.answers = [error(404), other(CONTENT[::-1])]
    done = call("fetch", "--all")
    assert done.return_value == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and ALEXNET in errors[0] and "HTTP 404" in errors[0]
    assert f"{VGG16}: fetched" in done.stdout and (home / VGG16).read_bytes() == CONTENT[::-1]


def test_a_stick_is_filled_from_what_is_here(home: Path, tmp_path: Path, served: Any) -> None:
    """... and takes the files to a machine without network."""
    stick = tmp_path / "stick"
    call("fetch", ALEXNET)
    done = call("fetch", ALEXNET, VGG16, "--weights-dir", str(stick))
    assert done.return_value == 2 and f"{ALEXNET}: copied into {stick}" in done.stdout  # the server has CONTENT only
    assert f"{VGG16}: " in done.stderr and len(served.asked) == 2
    (home / ALEXNET).unlink()
    served.answers = [error(500)]
    done = call("fetch", "--all", "--from", str(stick))
    assert done.return_value == 2 and f"{ALEXNET}: copied into {home}" in done.stdout
    assert f"error: {VGG16}: is not in {stick}; fetch it on a machine with network" in done.stderr
    assert len(served.asked) == 2
    assert isinstance(call("fetch", "--all", "--from", str(tmp_path / "none")).exception, RfbenchError)


def test_large_files_have_a_progress_line(home: Path, served: Any, short_list: Any) -> None:
    content = CONTENT * 10
    served.answers = [
        lambda h: h.wfile.write(h.ranged(content)[:1_500_000]),
        lambda h: h.wfile.write(h.ranged(content)),
    ]
    short_list[ALEXNET] = msgspec.structs.replace(
        short_list[ALEXNET], bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    done = call("fetch", ALEXNET)
    assert done.return_value == 0, done.stderr
    assert f"{ALEXNET}: 3 MB\n" in done.stderr and f"{ALEXNET}: fetch 3 of 3, " in done.stderr
    assert "MB/s" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch"], "nothing is named; give files, --metrics NAMES"),
        (["fetch", "--all", ALEXNET], "--all is every file of the list"),
        (["fetch", "alexnet-owt.pth"], "did you mean alexnet-owt-7be5be79.pth"),
        (["fetch", "dist"], "unknown weights file, model or metric 'dist'; did you mean dists"),
        (["fetch", "minne"], "did you mean mine"),
        (["fetch", "--metrics", "lpips_alx"], "did you mean lpips_alex"),
        (["fetch", "--metrics", ","], "--metrics: found no name"),
        (["fetch", "--models", "min"], "unknown model 'min'"),
        (["fetch", "--metrics", "pyiqa:musiq"], "the files of other pyiqa metrics are not on the list"),
        (["ls", "--weights-dir", "/nowhere"], "is not a folder"),
        (["verify", "--weights-dir", "/nowhere"], "is not a folder"),
    ],
)
def test_wrong_words_are_one_line(home: Path, models: Any, words: list[str], message: str) -> None:
    done = call(*words)
    assert isinstance(done.exception, RfbenchError) and done.exception.exit_code == 2
    assert message in str(done.exception) and "\n" not in str(done.exception)
    assert not home.exists()


def test_verify_hashes_what_is_there(home: Path, short_list: Any) -> None:
    done = call("verify")
    assert done.return_value == 0 and "3 of 5 listed files are here, 0 wrong" in done.stderr
    home.mkdir(parents=True)
    (home / ALEXNET).write_bytes(CONTENT)
    (home / "foreign.pth").write_bytes(b"?")
    (home / f".{VGG16}.part").write_bytes(b"half")
    done = call("verify")
    assert done.return_value == 0 and f"{home / ALEXNET}: right\n" in done.stdout
    assert f"{home / 'foreign.pth'}: not on the list" in done.stdout and ".part" not in done.stdout
    broken = CONTENT[:-1] + b"?"
    (home / ALEXNET).write_bytes(broken)
    done = call("verify")
    assert done.return_value == 1 and "1 wrong" in done.stderr
    found = hashlib.sha256(broken).hexdigest()[:8]
    assert f"{home / ALEXNET}: WRONG: sha256 {found}..., 320000 bytes, expected" in done.stdout
    short_list[ALEXNET] = msgspec.structs.replace(short_list[ALEXNET], sha256=hashlib.sha256(CONTENT).hexdigest()[:8])
    (home / ALEXNET).write_bytes(CONTENT)
    assert "verified by its size and the 8 digits of its hash" in call("verify").stdout


# --- a run without network --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, WeightsFile]]:
    """Trunks with generated weights, and a list that holds their hashes."""
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    from tests.unit.test_metrics_networks import patterned

    folder, entries = tmp_path_factory.mktemp("generated"), dict(weights.listed())
    for constructor, file in (("alexnet", ALEXNET), ("vgg16", VGG16)):
        with torch.device("meta"):
            features = getattr(torchvision.models, constructor)(weights=None).features
        torch.save({f"features.{k}": v for k, v in patterned(features.state_dict()).items()}, folder / file)
        size, found = (folder / file).stat().st_size, weights.hash_of(folder / file)
        entries[file] = msgspec.structs.replace(entries[file], bytes=size, sha256=found)
    return folder, entries


@pytest.mark.parametrize("there", [(), (ALEXNET,), (VGG16,), (ALEXNET, VGG16)])
def test_a_run_uses_what_the_folder_holds(
    there: tuple[str, ...], generated: tuple[Path, dict[str, WeightsFile]], home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import socket

    source, entries = generated
    monkeypatch.setattr(listing, "_committed", lambda: entries)
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("a run asked the network"))
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in there:
        (folder / file).symlink_to(source / file)
    data = write_dataset(tmp_path / "data", count=2)
    words = ["--model", "nearest", "--data", str(data), "--metrics", "psnr_rgb,lpips_alex,dists", "--workers", "0"]
    words += ["--weights-dir", str(folder), "--out", str(tmp_path / "out")]
    lacking = {name: file for name, file in (("lpips_alex", ALEXNET), ("dists", VGG16)) if file not in there}
    strict = CliRunner().invoke(run_command, [*words, "--strict"], standalone_mode=False)
    if lacking:
        assert isinstance(strict.exception, RfbenchError) and "weights fetch" in str(strict.exception)
        assert not (tmp_path / "out").exists()
    else:
        assert strict.exception is None
    done = CliRunner().invoke(run_command, words, standalone_mode=False)
    assert done.exception is None and done.return_value == 0
    for name, file in lacking.items():
        assert f"warning: {name}: weights missing: {file} (" in done.stderr
        assert f"'rfbench weights fetch {file}' gets it" in done.stderr
    both = "'rfbench weights fetch --metrics lpips_alex,dists' gets all of these weights"
    assert (both in done.stderr) == (len(lacking) == 2)
    summary = json.loads((tmp_path / "out" / "nearest" / "summary.json").read_text())
    for name in ("psnr_rgb", "lpips_alex", "dists"):
        cell = summary["rows"]["sample"]["metrics"][name]
        if name in lacking:
            assert "value" not in cell and "n" not in cell and "weights missing" in cell["reason"]["text"]
        else:
            assert cell["value"] > 0 and cell["n"] == 2 and "reason" not in cell


# --- files whose publisher gives no hash ------------------------------------------------------------------------------


def test_a_file_without_a_published_hash_is_used_once_its_hash_was_recorded(models: Any, home: Path) -> None:
    models["mine"] = dataclasses.replace(
        models["mine"], weights={"mine-x4.pth": MINE | {"sha256": "", "bytes": 300_000}}
    )
    model = Model("mine")
    with pytest.raises(Unavailable, match=r"weights missing: mine-x4\.pth \(about 300 kB\)"):
        model.check_ready()
    home.mkdir(parents=True)
    (home / "mine-x4.pth").write_bytes(CONTENT)
    with pytest.raises(Unavailable, match="its publisher gives no hash and none was recorded; 'rfbench weights fetch"):
        model.check_ready()
    assert "not recorded" in call("ls").stdout
    assert "no hash was published or recorded" in call("verify").stdout
    assert model.identity()["spec"]["weights"] == {"mine-x4.pth": ""}
    done = call("fetch", "mine")
    assert "recorded, since its publisher gives none; enforced from now on" in done.stdout
    assert "about 300 kB" in done.stderr
    Model("mine").load()
    model.check_ready()
    assert model.identity()["spec"]["weights"] == {"mine-x4.pth": MINE["sha256"]}
    assert "right (as recorded when it was first fetched)" in call("verify").stdout
    (row,) = (r for r in json.loads(call("ls", "--json").stdout) if r["file"] == "mine-x4.pth")
    assert row["state"] == "found" and row["sha256_is"] == "recorded" and row["bytes"] == len(CONTENT)
    (home / "mine-x4.pth").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(Unavailable, match=r"weights wrong: mine-x4\.pth has the sha256 .*, expected "):
        model.check_ready()


def test_a_hub_s_whole_folder_will_do(models: Any, home: Path, tmp_path: Path) -> None:
    source = "https://hub.example/someone/Net/resolve/main/weight/deep/mine-x4.pth"
    models["mine"] = dataclasses.replace(models["mine"], weights={"mine-x4.pth": MINE | {"source": source}})
    (tmp_path / "Net" / "weight" / "deep").mkdir(parents=True)
    (tmp_path / "Net" / "weight" / "deep" / "mine-x4.pth").write_bytes(CONTENT)
    (tmp_path / "empty").mkdir()
    assert f"is not in {tmp_path / 'empty'}; fetch" in call("fetch", "mine", "--from", str(tmp_path / "empty")).stderr
    assert "copied into" in call("fetch", "mine", "--from", str(tmp_path / "Net")).stdout
    for other_source in ("https://x.y/a/resolve/main/../../etc/passwd", "https://x.y/mine.pth", "https://x.y/resolve/"):
        assert WeightsFile("a.pth", 1, "", "CC0", other_source).hub_path == ""


def test_a_run_s_note_names_what_restricts_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    from baselines.adcsr.spec import ADCSR
    from baselines.interpolation import BICUBIC
    from bench.cli.run import say_prepared
    from bench.predict.plan import _licences

    data: Any = SimpleNamespace(licence="CC0-1.0")
    found = _licences(ADCSR, data)
    assert "openrail++" in found["weights"] and "weights" not in _licences(BICUBIC, data)
    code = dataclasses.replace(ADCSR, licence="Apache-2.0")  # whatever the code is under
    runs = {"adcsr": SimpleNamespace(licences=_licences(code, data))}
    say_prepared(SimpleNamespace(not_ready={}, runs=runs))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: the weights of adcsr are under") and "conditions on who uses it" in line
