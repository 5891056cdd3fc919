"""Guests: the same numbers as in process, and one line for each way in which a process can let its host down."""

from __future__ import annotations

import ast
import gc
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.check.models import check_model, check_task
from bench.core import registry
from bench.core.errors import ItemError, RfbenchError, Unavailable
from bench.models.call import Answer, Model
from bench.models.guests import guest, worker
from bench.models.guests.adapter import GuestAdapter
from bench.protocols.base import Task
from tests.conftest import ROOT, installed
from tests.guests import fake_environment, family, install_guests, left_behind

SMALL = ((12, 16), (48, 64))
HEADER = {"size": [4, 4], "bands": "RGB", "ids": ["a"], "captions": [""], "seeds": [[1]], "offset": [0, 0],
          "dates": [""], "target_dates": [""], "gsd_m": None, "series": []}  # fmt: skip


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin with the guest and its twin, and its environment; nothing it started is left at the end."""
    monkeypatch.setenv("RFBENCH_ENVS", str(tmp_path / "envs"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with installed(install_guests(tmp_path / "site", item_s=2.0), "rfbench_guests", "rfbench_guests.shim"):
        fake_environment(importlib.import_module("rfbench_guests").HOME)
        yield tmp_path
    gc.collect()
    assert not left_behind(tmp_path)


def loaded(options: str = "", name: str = "guest-noisy") -> Model:
    model = Model(f"{name}:{options}" if options else name)
    model.check_ready()
    model.load()
    return model


def ask(model: Model, *names: str, size: tuple[tuple[int, int], tuple[int, int]] = SMALL) -> list[Answer | ItemError]:
    tasks: list[Task] = [check_task(name, *size, model.spec) for name in names or ("a",)]
    return model.predict(tasks, run_seed=0, draws=2)


def the_error(options: str) -> str:
    model = loaded(options)
    (found,) = ask(model)
    model.adapter.close()
    assert isinstance(found, ItemError), found
    assert "\n" not in str(found)
    return str(found)


def test_the_contract_tests_hold_through_the_worker(guests: Path) -> None:
    report = check_model("guest-noisy")
    assert report.exit_code == 0, [str(line) for line in report.lines]
    assert {line.check for line in report.lines if line.status == "skip"} == {"captions"}
    assert "bit for bit" in next(line.found for line in report.lines if line.check == "batch")


@pytest.mark.parametrize("size", [SMALL, ((9, 7), (45, 35)), ((1, 1), (5, 5))])
def test_a_guest_answers_what_its_twin_answers(guests: Path, size: tuple[tuple[int, int], tuple[int, int]]) -> None:
    answers = [ask(loaded(name=name), "a", "b", "c", size=size) for name in ("guest-noisy", "twin-noisy")]
    for ours, theirs in zip(*answers, strict=True):
        assert isinstance(ours, Answer) and isinstance(theirs, Answer)
        assert ours.stored().keys() == theirs.stored().keys() and ours.facts.keys() == {"mean"}
        for name, values in ours.stored().items():
            np.testing.assert_array_equal(values, theirs.stored()[name])
        assert (ours.facts, ours.notes) == (theirs.facts, theirs.notes)


def test_tiles_of_a_guest_are_those_of_its_twin(guests: Path) -> None:
    answers = []
    for name in ("guest-noisy", "twin-noisy"):
        model = loaded(name=name)
        answers.append(model._in_smaller_tiles(check_task("a", (40, 33), (160, 132), model.spec), 0, 2, "post"))
    ours, theirs = answers
    assert isinstance(ours, Answer) and isinstance(theirs, Answer)
    np.testing.assert_array_equal(ours.arrays["samples"], theirs.arrays["samples"])


def test_large_arrays_go_both_ways(guests: Path) -> None:
    """64 MB in CI, 1 GB with RFBENCH_TEST_LARGE=1."""
    one = worker.Worker(launch(Model("guest-noisy:do=back")), "cpu", "float32")
    count = 2**28 if os.environ.get("RFBENCH_TEST_LARGE") else 2**24
    sent = np.arange(count, dtype=np.float32).reshape(1, 1024, -1, 1)
    _, arrays = one.upscale(HEADER, {"images": sent}, 600)
    np.testing.assert_array_equal(arrays["mean"], sent)
    one.close()


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ("fail", "guest-noisy: ValueError: this image does not suit me (shim.py line "),
        ("tell", "guest-noisy: the checkpoint is for x2, expected x4; take another"),
        ("exit", "SystemExit: upstream gives up"),
        ("shape", "samples has the shape 1x2x47x64x3, expected 1x2x48x64xC"),
        ("double", "samples is float64, expected float32"),
        ("nan", "samples holds 3 values that are not finite"),
        ("list", "TypeError: samples is a list, expected a numpy array"),
        ("other", "upscale gave picture, expected samples, mean, std, maps or facts"),
        ("objects", "ValueError: Object arrays cannot be saved"),
        ("half", "is not whole (it holds 6080 bytes of values), expected float32"),
        ("memory", "out of memory even in tiles of 8 LR px"),
        ("garbage", "its process sent b'hello', expected a header of type result; its log ends: "),
        ("endless", "its process sent a line without end; its log ends: "),
        ("hang", "its process was ended after 4 s answering; its log ends: "),
        ("die", "its process was ended by SIGKILL while answering; its log ends: loading cpu float32 | "),
    ],
)
def test_each_failure_is_one_line(guests: Path, do: str, expected: str) -> None:
    assert expected in the_error(f"do={do}")


def test_the_noise_on_stdout_is_in_no_header(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISE", '{"type": "result", "id": 2, "arrays": {}}\n' * 50)
    (answer,) = ask(loaded())
    assert isinstance(answer, Answer)


def test_only_the_guilty_image_is_lost(guests: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = loaded("do=die,on=b")
    found = ask(model, "a", "b", "c")
    assert [type(f) for f in found] == [Answer, ItemError, Answer]
    assert "ended by SIGKILL while answering" in str(found[1]) and str(found[1]).endswith("(twice)")
    expected = ask(loaded(name="twin-noisy"), "c")[0]
    assert isinstance(expected, Answer) and isinstance(found[2], Answer)
    np.testing.assert_array_equal(found[2].arrays["samples"], expected.arrays["samples"])
    restarts = model.adapter.session()["restarts"]
    assert len(restarts) == 2 and restarts[0].startswith("a, b, c: its process was ended by SIGKILL")
    assert "about to die" in worker.kept_log("guest-noisy").read_text()
    assert "it is started again (its log: " in capfd.readouterr().err


def test_a_crash_that_does_not_come_again_loses_nothing(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKER", str(guests / "marker"))
    model = loaded("do=die once")
    (ours,) = ask(model)
    (theirs,) = ask(loaded(name="twin-noisy"))
    assert isinstance(ours, Answer) and isinstance(theirs, Answer)
    np.testing.assert_array_equal(ours.arrays["samples"], theirs.arrays["samples"])
    assert "SIGSEGV" in model.adapter.session()["restarts"][0]


def test_a_guest_that_was_killed_between_two_images_is_started_again(guests: Path) -> None:
    model = loaded()
    (first,) = ask(model)
    adapter = model.adapter
    assert isinstance(adapter, GuestAdapter) and adapter._worker is not None
    os.kill(adapter._worker._process.pid, signal.SIGKILL)
    (second,) = ask(model)
    assert isinstance(first, Answer) and isinstance(second, Answer)
    np.testing.assert_array_equal(first.arrays["samples"], second.arrays["samples"])
    assert len(adapter.session()["restarts"]) == 1
    assert adapter.session()["guest"]["numpy"] == np.__version__


def launch(model: Model, **changes: object) -> worker.Launch:
    import dataclasses

    assert isinstance(model.adapter, GuestAdapter)
    return dataclasses.replace(model.adapter._launch(load=True), **changes)  # type: ignore[arg-type]


def test_an_idle_guest_ends_and_comes_back(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("guest-noisy")
    quick = launch(model, idle_s=0.2)
    monkeypatch.setattr(GuestAdapter, "_launch", lambda self, load: quick)
    model.load()
    (first,) = ask(model)
    adapter = model.adapter
    assert isinstance(adapter, GuestAdapter) and adapter._worker is not None
    adapter._worker._process.wait(10)
    (second,) = ask(model)
    assert isinstance(first, Answer) and isinstance(second, Answer)
    assert "restarts" not in adapter.session()


def test_starting_has_a_limit_and_failing_to_load_is_one_line(guests: Path) -> None:
    # On a busy machine the limit may come before its Python has started.
    says = r"^its process was ended after 1.5 s (loading its model|starting); its log ends: "
    with pytest.raises(worker.GuestLost, match=says):
        worker.Worker(launch(Model("guest-noisy:do=slow start"), start_s=1.5), "cpu", "float32")
    with pytest.raises(
        RfbenchError, match=r"guest-noisy: ValueError: the checkpoint has no key 'unet' \(shim.py line \d"
    ):
        Model("guest-noisy:do=unloadable").load()
    report = check_model("guest-noisy:do=unloadable")
    assert [line.check for line in report.lines if line.status == "fail"] == ["loaded"]
    nowhere = launch(Model("guest-noisy"), python=guests / "nothing")
    with pytest.raises(worker.GuestLost, match=r"its process does not start: .*'rfbench envs build guest-noisy' make"):
        worker.Worker(nowhere, "cpu", "float32")
    broken = guests / "broken"
    broken.write_text("#!/bin/sh\necho no numpy here >&2; exit 3\n")
    broken.chmod(0o755)
    with pytest.raises(worker.GuestLost, match="ended with code 3 while starting; its log ends: no numpy here"):
        worker.Worker(launch(Model("guest-noisy"), python=broken), "cpu", "float32")


def test_what_a_guest_started_ends_with_it(guests: Path) -> None:
    model = loaded("do=leave a child")
    assert isinstance(ask(model)[0], Answer)
    assert len(family(guests)) == 3  # the guest, its watcher, its child
    model.adapter.close()
    assert not left_behind(guests)


HOST = """
import os, sys, time
from bench.models.call import Model
model = Model(sys.argv[1])
model.load()
print("loaded", flush=True)
from bench.check.models import check_task
model.predict([check_task("a", (12, 16), (48, 64), model.spec)], run_seed=0, draws=1)
print("answered", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("do", ["do=leave a child", "do=hang"])
def test_no_guest_outlives_a_killed_host(guests: Path, do: str) -> None:
    path = os.pathsep.join([str(guests / "site"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, f"guest-noisy:{do}"],
        env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    if do != "do=hang":
        assert process.stdout.readline() == "answered\n"
    assert len(family(guests)) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    # that nothing is left, the folder included, is what the fixture looks at


def test_the_environment_of_a_guest(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    environ = worker._environ(Path("/x/bin/python"))
    assert environ["OMP_NUM_THREADS"] == "3" and environ["PATH"].startswith("/x/bin" + os.pathsep)
    assert "PYTHONPATH" not in environ and environ["PYTHONHASHSEED"] == "0"
    one = worker.Worker(launch(Model("guest-noisy:do=threads")), "cpu", "float32")
    _, arrays = one.upscale(HEADER, {"images": np.zeros((1, 1, 1, 3), np.float32)}, 10)
    assert arrays["mean"].item() == 3.0
    one.close()


def test_what_is_missing_is_told_before_anything_runs(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFBENCH_ENVS", str(guests / "elsewhere"))
    with pytest.raises(Unavailable) as error:
        Model("guest-noisy").check_ready()
    assert str(error.value) == (
        "model guest-noisy: environment missing: rfbench_guests/requirements.txt; 'rfbench envs build guest-noisy' "
        "makes it"
    )


def test_the_identity_has_what_can_change_a_number_and_no_more(guests: Path) -> None:
    first = Model("guest-noisy").identity()
    one = first["adapter"]["environment"]
    assert one.keys() == {"requirements_sha256", "python"}
    assert str(guests) not in repr(first)
    (guests / "site" / "rfbench_guests" / "requirements.txt").write_text("numpy==1.0\n")
    second = Model("guest-noisy").identity()
    assert one["requirements_sha256"] != second["adapter"]["environment"]["requirements_sha256"]
    assert first["code"] == second["code"]  # of the shim, too: what it computes
    (shim,) = (guests / "site" / "rfbench_guests").glob("shim.py")
    shim.write_text(shim.read_text() + "\nONE_MORE = 1\n")
    assert Model("guest-noisy").identity()["code"] != first["code"]
    assert registry.load("models", "guest-noisy").environment is not None and "environment" not in first["spec"]


def test_the_guest_s_file_is_one_that_old_pythons_read() -> None:
    for module in (guest, worker.seeds_module):
        assert module.__file__ is not None
        ast.parse(Path(module.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    nodes = ast.walk(ast.parse(Path(guest.__file__).read_text(encoding="utf-8")))
    imported = {n.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for n in node.names}
    assert imported <= {*sys.stdlib_module_names, "numpy"}


def test_a_guest_says_how_much_of_its_device_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [5, 9]
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: len(held),
        max_memory_allocated=lambda i: held[i],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert guest._device_peak_bytes() == 9
    cuda.is_initialized = lambda: False
    assert guest._device_peak_bytes() == 0
    adapter: Any = GuestAdapter()
    model: Any = Model("bicubic")
    model.adapter = adapter
    adapter._worker = SimpleNamespace(peak_bytes=3, device_peak_bytes=9)
    assert adapter.device_peak_bytes() == model.device_peak_bytes() == 9
    adapter._worker.device_peak_bytes = 0  # a processor has none
    assert adapter.device_peak_bytes() is model.device_peak_bytes() is None
