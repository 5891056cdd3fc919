"""What pyiqa and its kind load: found in the weights folders, hashed before it is read, never fetched."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import weights
from bench.core.errors import Unavailable
from bench.metrics import pyiqa_any
from bench.metrics.base import Metric, Setting
from bench.metrics.lookup import files_of
from bench.metrics.pyiqa_any import pyiqa_metric
from bench.metrics.scorer import Scorer
from tests.unit.test_metrics_networks import images

torch = pytest.importorskip("torch")


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of everything, below one folder that is also the home."""
    from huggingface_hub import constants

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(pyiqa_any, "_known", {})
    return tmp_path


# --- doors ------------------------------------------------------------------------------------------------------------


def test_every_door_is_seen(caches: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    from scipy.io import loadmat, savemat

    tensors = {"a": torch.arange(3.0)}
    torch.save(tensors, caches / "one.pth")
    safetensors.save_file(tensors, caches / "two.safetensors")
    savemat(caches / "three.mat", {"a": np.arange(3)})
    np.save(caches / "four.npy", np.arange(3))
    (caches / "five.BIN").write_bytes(b"5")
    (caches / "notes.txt").write_text("read, and no weights")
    with files_of("x") as found:
        torch.load(caches / "one.pth", weights_only=True)
        safetensors.load_file(caches / "two.safetensors")
        loadmat(caches / "three.mat")
        np.load(caches / "four.npy")
        (caches / "five.BIN").read_bytes()
        (caches / "notes.txt").read_text()
        (caches / "written.pth").write_bytes(b"6")
        thread = threading.Thread(target=lambda: (caches / "written.pth").read_bytes())  # another's
        thread.start()
        thread.join()
    expected = ("one.pth", "two.safetensors", "three.mat", "four.npy", "five.BIN")
    assert found == {name: sha(caches / name) for name in expected}
    (caches / "one.pth").read_bytes()
    safetensors.load_file(caches / "two.safetensors")
    assert len(found) == 5  # the watch has ended


def test_files_of_packages_are_their_versions() -> None:
    lpips = pytest.importorskip("lpips")
    with files_of("x") as found:
        torch.load(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", weights_only=True, map_location="cpu")
    assert found == {}


def test_a_name_that_holds_a_hash_must_have_it(caches: Path) -> None:
    (caches / "net.pth").write_bytes(b"net")
    right = caches / f"net-{sha(caches / 'net.pth')[:8]}.pth"
    right.write_bytes(b"net")
    wrong = caches / "net-00000000.pth"
    wrong.write_bytes(b"net")
    with files_of("x") as found:
        right.read_bytes()
        with pytest.raises(Unavailable, match=r"weights wrong: x found net-0{8}\.pth with sha256 .*expected 0{8}"):
            wrong.read_bytes()
    assert found == {right.name: sha(right)}
    blob = caches / ("0" * 64)  # so the hub names what a link of its cache leads to
    blob.write_bytes(b"net")
    (caches / "model.safetensors").symlink_to(blob)
    with files_of("x"), pytest.raises(Unavailable, match=r"model\.safetensors with sha256"):
        (caches / "model.safetensors").read_bytes()


def test_a_listed_name_must_be_the_listed_file(caches: Path) -> None:
    impostor = caches / "niqe_modelparameters.mat"
    impostor.write_bytes(b"something")
    with files_of("x"), pytest.raises(Unavailable, match=r"niqe_modelparameters\.mat .* expected fa2aa4d1"):
        impostor.read_bytes()


def test_two_files_of_one_name_are_both_noted(caches: Path) -> None:
    for folder in ("a", "b"):
        (caches / folder).mkdir()
        (caches / folder / "model.bin").write_bytes(folder.encode())
    with files_of("x") as found:
        for folder in ("a", "b", "a"):
            (caches / folder / "model.bin").read_bytes()
    assert sorted(found.values()) == sorted(sha(caches / f / "model.bin") for f in ("a", "b"))


def test_code_of_the_hub_is_not_run(caches: Path) -> None:
    (caches / "hf" / "repo").mkdir(parents=True)
    (caches / "hf" / "repo" / "modeling.py").write_text("raise SystemExit")
    with files_of("x"), pytest.raises(Unavailable, match=r"x would run code from the hub's cache \(modeling\.py\)"):
        (caches / "hf" / "repo" / "modeling.py").read_text()


def test_nothing_is_fetched_and_the_file_is_named(caches: Path) -> None:
    import urllib.request

    for address, why in {
        "a/net-12.pth?download=1": r"pyiqa:x needs the file net-12\.pth, which is not here; put it into --weights-dir",
        "alexnet-owt-7be5be79.pth": r"needs the file alexnet.*, which is not here; 'rfbench weights fetch alexnet-owt",
    }.items():
        with pytest.raises(Unavailable, match=why), files_of("pyiqa:x"):
            torch.hub.load_state_dict_from_url(f"https://example.org/{address}")
    with pytest.raises(Unavailable, match=r"b\.bin"), files_of("x"):
        urllib.request.urlopen("https://example.org/b.bin")
    assert not [p for p in caches.rglob("*") if p.is_file()]


def test_hub_and_weights_folders_are_looked_into(caches: Path) -> None:
    given, hub = caches / "given", caches / "torch" / "hub" / "checkpoints"
    for folder, value in ((hub, 1.0), (given, 2.0)):  # the later one comes first
        folder.mkdir(parents=True)
        torch.save({"a": torch.tensor(value)}, folder / "net.pth")
        with files_of("x", given if given.is_dir() else None) as found:
            state = torch.hub.load_state_dict_from_url("https://example.org/net.pth", weights_only=True)
        assert float(state["a"]) == value
        assert found == {"net.pth": sha(folder / "net.pth")}
        assert sorted(p.name for p in folder.iterdir()) == ["net.pth"]


def test_clip_is_held_against_its_address(caches: Path) -> None:
    clip = pytest.importorskip("pyiqa.archs.afineclip_model")
    (caches / "given").mkdir()
    (caches / "given" / "ViT.pt").write_bytes(b"clip")
    address = f"https://example.org/{sha(caches / 'given' / 'ViT.pt')}/ViT.pt"
    own = str(caches / "own")  # where it would look and download
    with files_of("x", caches / "given") as found:
        Path(clip._download(address, own)).read_bytes()
    assert found == {"ViT.pt": sha(caches / "given" / "ViT.pt")} and not Path(own).exists()
    with files_of("x"), pytest.raises(Unavailable, match=r"needs the file ViT\.pt, which is not here"):
        clip._download(address, own)
    (caches / "given" / "ViT.pt").write_bytes(b"no clip")
    with files_of("x", caches / "given"), pytest.raises(Unavailable, match=r"weights wrong: x found another ViT\.pt"):
        clip._download(address, own)


# --- pyiqa ------------------------------------------------------------------------------------------------------------


def brisque(folder: Path, seed: int) -> Path:
    """A file such as pyiqa's brisque reads, of no particular wisdom."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    state = torch.from_numpy(random.random((7, 1))), torch.from_numpy(random.random((7, 36)))
    torch.save(state, folder / "brisque_svm_weights.pth")
    return folder / "brisque_svm_weights.pth"


def test_the_identity_names_the_bytes_that_scored(caches: Path) -> None:
    pytest.importorskip("pyiqa")
    metric = pyiqa_metric("brisque")
    empty = metric(Setting())
    assert "needs the file brisque_svm_weights.pth" in str(empty.missing())
    options = metric.parameters[1]
    assert empty.identity() == f"pyiqa:brisque|NR|{options}|w:missing|q8|r1"
    pair, seen = images(), {}
    for seed in (0, 1):
        folder = caches / f"given{seed}"
        path = brisque(folder, seed)
        ours = metric(Setting(weights_dir=folder))
        assert ours.missing() is None
        assert ours.identity() == f"pyiqa:brisque|NR|{options}|w:{sha(path)[:8]}|q8|r1"
        score = ours.assess(*pair)
        assert score.value is not None, score.reason
        seen[ours.identity()] = score.value
    assert len(set(seen.values())) == 2


def test_the_identity_tells_other_options_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later pyiqa may mean something else by a name."""
    pytest.importorskip("pyiqa")
    now = pyiqa_any._configurations()
    later = {**now["psnr"], "metric_opts": {**now["psnr"]["metric_opts"], "test_y_channel": True}}
    with monkeypatch.context() as patched:
        patched.setattr(pyiqa_any, "_configurations", lambda: now | {"psnr": later})
        other = pyiqa_metric.__wrapped__("psnr")
    assert re.fullmatch(r"opts:[0-9a-f]{8}", pyiqa_metric("psnr").parameters[1])
    assert other.parameters[1] != pyiqa_metric("psnr").parameters[1] and other.parameters[0] == "FR"


def test_pyiqas_own_cache_is_the_last_place(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyiqa")
    from pyiqa.utils import download_util

    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(caches / "pyiqa"))
    path = brisque(caches / "pyiqa", 0)
    metric = pyiqa_metric("brisque")(Setting())
    assert metric.missing() is None and sha(path)[:8] in metric.identity()
    before = brisque(caches / ".cache" / "rfbench" / "weights", 1)
    pyiqa_any._known.clear()
    assert sha(before)[:8] in pyiqa_metric("brisque")(Setting()).identity()


def test_pickled_code_is_not_run(caches: Path) -> None:
    pytest.importorskip("pyiqa")

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (caches / "ran",))

    folder = caches / "given"
    folder.mkdir()
    (folder / "brisque_svm_weights.pth").write_bytes(pickle.dumps(Trap()))
    why = pyiqa_metric("brisque")(Setting(weights_dir=folder)).missing()
    assert why is not None and "cannot build it" in str(why) and "\n" not in str(why)
    assert not (caches / "ran").exists()


def test_weights_that_change_between_plan_and_score_are_a_reason(caches: Path) -> None:
    pytest.importorskip("pyiqa")
    folder = caches / "given"
    brisque(folder, 0)
    setting = Setting(weights_dir=folder)
    planned = {"pyiqa:brisque": pyiqa_metric("brisque")(setting).identity()}
    estimate, reference = images()
    for seed, changed in ((0, False), (1, True)):
        pyiqa_any._known.clear()  # as in a scoring process
        brisque(folder, seed)
        scorer = Scorer(["pyiqa:brisque", "psnr_rgb"], setting, planned)
        scores = scorer.score(dataclasses.replace(reference, cache={}), {"sample": estimate}).scores["sample"]
        assert (scores["pyiqa:brisque"].value is None) == changed
        assert "have changed since the run was planned" in str(scores["pyiqa:brisque"].reason) or not changed
        assert scores["psnr_rgb"].value is not None


def test_what_is_read_only_while_scoring_is_refused(caches: Path) -> None:
    """The identity was printed before: it cannot name such a file."""
    pytest.importorskip("pyiqa")
    (caches / "late.pth").write_bytes(b"late")
    metric: Metric = pyiqa_metric("psnr")(Setting())
    assert metric.assess(*images()).value is not None
    inner = metric._metric  # type: ignore[attr-defined]

    def late(*args: Any) -> Any:
        (caches / "late.pth").read_bytes()
        return inner(*args)

    metric._metric = late  # type: ignore[attr-defined]
    assert "pyiqa loads late.pth only while it scores" in str(metric.assess(*images()).reason)
