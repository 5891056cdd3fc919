"""Past one process: bits do not depend on how many predict, and what fails costs itself alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench import weights
from bench.cli.experiment import changed
from bench.cli.plan import command as plan
from bench.cli.table import command as table
from bench.configs.experiment import load as load_experiment
from bench.core import memory
from bench.core.device import resolve_devices
from bench.core.errors import RfbenchError
from bench.executors.cluster import Cluster
from bench.executors.crew import Crew, Feeder, Job, Lost, Units
from bench.executors.processes import Processes
from bench.models.call import Answer, Model
from bench.models.ready import lacking
from bench.predict.execute import predict
from bench.records.folder import RunFolder
from bench.reports.cost import costs
from rareflow.card import EMBEDDED
from tests.e2e.test_run import tree
from tests.runs import planned, run

MINE = '''
import multiprocessing, os
import numpy as np
from bench.models import Adapter, Batch, ModelSpec, Prediction, resize

class Mine(Adapter):
    """Noise by name; ``ends_on`` ends the process that gets that image, unless it is the main one."""

    spec = ModelSpec(name="mine", adapter="", stochastic=True, default_options={"ends_on": "", "load": ""})

    def load(self, device, dtype):
        if self.options["load"] == "out of memory":
            raise MemoryError
        if self.options["load"] == "wrong":
            raise ValueError("the file holds the tensor 'conv_in.weight' of 64x3x3x3, expected 32x3x3x3")

    def upscale(self, batch: Batch) -> Prediction:
        if self.options["ends_on"] in batch.ids and multiprocessing.parent_process() is not None:
            os._exit(9)
        noise = batch.noise(3)
        draws = [[resize(np.clip(image + 0.1 * n, 0, 1), batch.size) for n in of_one]
                 for image, of_one in zip(batch.images, noise)]
        return Prediction(samples=np.array(draws, np.float32))
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return f"{file}:Mine"


def trees(out: Path) -> dict[str, dict[str, bytes]]:
    return {p.name: tree(p) for p in sorted(out.iterdir())}


def test_a_process_knows_the_environment_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("first", "second"):
        monkeypatch.setenv("RFBENCH_TEST_WORD", word)
        with Processes[str, str](Job(os.getenv, ("RFBENCH_TEST_WORD",)), 1, "predicting") as crew:
            crew.give("key", str)
            assert dict(crew.take()) == {"key": word}


def test_no_byte_depends_on_how_many_processes_predict(
    dataset: Path, tmp_path: Path, mine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where one of them is ended from outside: this one does what it had in hand."""
    options: dict[str, Any] = dict(data=str(dataset), metrics=("psnr_rgb", "crps"), draws=2)
    for label, workers in (("alone", 0), ("two", 2)):
        models = (f"{mine}:label=a", f"{mine}:label=b,ends_on=im4")
        outcome = run(models=models, workers=workers, out=tmp_path / label, **options)
        assert outcome.exit_code == 0
    assert trees(tmp_path / "alone") == trees(tmp_path / "two")
    a, b = (RunFolder(tmp_path / "two" / name).sessions()[0] for name in "ab")
    assert a["processes"] == b["processes"] == 2 and a["predicted"] == 5
    said = capfd.readouterr().err
    assert "b: a predicting process was ended from outside (out of memory?); the rest is predicted in one" in said


def test_a_model_that_cannot_be_loaded_costs_itself_alone(
    dataset: Path, tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One has a wrong checkpoint, one runs out of memory while loading; the third finishes, the exit code says so."""
    models = (f"{mine}:label=a,load=wrong", f"{mine}:label=b,load=out of memory", f"{mine}:label=c")
    outcome = run(models=models, data=str(dataset), metrics=("psnr_rgb",), workers=0, out=tmp_path / "out")
    assert outcome.exit_code == 2 and [f.path.name for f in outcome.folders] == ["c"]
    assert "expected 32x3x3x3" in outcome.left_out["a"] and "out of memory while loading" in outcome.left_out["b"]
    host = RunFolder(tmp_path / "out" / "a").sessions()[-1]
    assert "expected 32x3x3x3" in host["error"]
    assert "c: done; memory " in capsys.readouterr().err


def test_options_of_a_model_stand_before_the_command_s(dataset: Path, mine: str) -> None:
    """Two rows of one model in one command, told apart by what differs."""
    prepared = planned(models=(f"{mine}:draws=1", mine, f"{mine}:batch=2"), data=str(dataset), draws=3, workers=0)
    plans = {label: record.plan for label, record in prepared.runs.items()}
    assert [(p.draws, p.batch_size) for p in plans.values()] == [(1, 1), (3, 1), (3, 2)]
    assert [*plans] == ["mine draws=1 batch=1", "mine draws=3 batch=1", "mine draws=3 batch=2"]
    one = planned(models=(mine,), data=str(dataset), draws=1).runs["mine"]
    assert one.plan_sha256 == prepared.runs["mine draws=1 batch=1"].plan_sha256
    assert one.command == prepared.runs["mine draws=1 batch=1"].command


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("draws=none", "mine:draws: found 'none', expected a whole number of 1 or more"),
        ("batch=0", "mine:batch: found '0', expected a whole number"),
        ("dtype=float8", "mine:dtype: found float8, expected float32 or float16"),
        ("drws=1", "unknown option of model mine 'drws'; did you mean draws?"),
    ],
)
def test_a_wrong_option_of_a_model_is_one_line(mine: str, option: str, said: str) -> None:
    with pytest.raises(RfbenchError, match=said):
        Model(f"{mine}:{option}")


@pytest.mark.parametrize(("table", "count"), [("table1", 7), ("table2", 5)])
def test_the_shipped_tables_with_random_weights(table: str, count: int) -> None:
    """``--set`` reaches every system, each says what it is, and none needs a file."""
    words = ("weights=random,size=tiny,steps=2,draws=1", "zoomldm:stride=500")
    models = [Model(text) for text in changed(load_experiment(table).models(), words)]
    assert len(models) == count
    for model in models:
        assert "random" in model.label and model.spec.unlike_paper == "random weights" and not model.spec.weights
        assert model.draws == 1 and not model.training_ids
        assert model.options.get("steps", "2") == "2" and model.options.get("size", "tiny") == "tiny"
    (zoomldm,) = (model for model in models if model.spec.name == "zoomldm")
    assert zoomldm.options["stride"] == "500" and zoomldm.asked["draws"] == "1"


def test_set_goes_into_the_experiment(tmp_path: Path, mine: str) -> None:
    """A model of a file too; what no model takes, or no model is called, is one line."""
    models = changed((mine, "bicubic:label=plain"), ("load=wrong,label=x", "bicubic:label=y", "Mine:draws=2"))
    assert models == (f"{mine}:load=wrong,label=x,draws=2", "bicubic:label=y")
    with pytest.raises(RfbenchError, match="unknown option of --set for all models 'weigths'; did you mean weights"):
        changed(("rareflow", "bicubic"), ("weigths=random",))
    with pytest.raises(RfbenchError, match="unknown option of --set for bicubic 'weights'"):
        changed(("rareflow", "bicubic"), ("bicubic:weights=random",))
    with pytest.raises(RfbenchError, match="unknown model of --set 'rareflaw'; did you mean rareflow"):
        changed(("rareflow", "bicubic"), ("rareflaw:steps=2",))
    with pytest.raises(RfbenchError, match=r"^--set: no model was named; give --model NAME$"):
        changed((), ("steps=2",))
    words = ["--model", "rareflow", "--limit", "1", "--set", "steps=2,weights=random", "--save-config"]
    done = CliRunner().invoke(plan, [*words, str(tmp_path / "saved.toml")], standalone_mode=False)
    assert "rareflow-tiny-random" in done.output, done.output
    assert load_experiment(str(tmp_path / "saved.toml")).models() == ("rareflow:steps=2,weights=random",)


def test_random_rareflow_answers_otherwise(dataset: Path) -> None:
    """It needs no file beside what is embedded, is called so, and gives back what it took."""
    found = []
    for text in ("rareflow:steps=1", "rareflow:steps=1,weights=random"):
        prepared = planned(models=(text,), data=str(dataset), draws=1, limit=1)
        (model,) = prepared.models
        model.load()
        task = prepared.protocol.prepare(prepared.dataset.load(prepared.records[0], prepared.protocol.reads))
        (answer,) = model.predict([task], run_seed=0, draws=1)
        assert isinstance(answer, Answer), str(answer)
        found.append(answer.arrays["samples"])
        model.close()
        assert not _holds_networks(model.adapter)
    assert found[0].shape == found[1].shape and not np.allclose(found[0], found[1], atol=0.01)


@pytest.mark.parametrize("system", ["adcsr", "seesr", "zoomldm", "opensr", "satlas-esrgan", "sen2sr-lite"])
def test_a_closed_system_holds_no_network(system: str) -> None:
    model = Model(f"{system}:weights=random,size=tiny")
    if lacking(model.spec.requires):
        pytest.skip("needs the package of this system (pip install 'rfbench[systems]')")
    model.load()
    assert _holds_networks(model.adapter)
    model.close()
    assert not _holds_networks(model.adapter)


def _holds_networks(thing: Any, depth: int = 4) -> bool:
    """Whether a network can be reached from an object through what it holds."""
    if isinstance(thing, torch.nn.Module):
        return True
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else None
    parts = getattr(thing, "__dict__", {}).values() if parts is None else parts
    return depth > 0 and any(_holds_networks(part, depth - 1) for part in parts)


def test_a_wrong_file_is_told_before_anything_is_computed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its tensors' names: nothing was loaded by then, of that model or of any other."""
    monkeypatch.setenv("RFBENCH_CONVERTED", str(tmp_path / "converted"))
    (tmp_path / "weights").mkdir()
    torch.save({"module.body.1.conv_in.bias": torch.ones(3)}, tmp_path / "weights" / "net_params_200.pkl")
    torch.save({"state_dict": {"decoder.x": torch.ones(3)}}, tmp_path / "weights" / "halfDecoder.ckpt")
    for path in (tmp_path / "weights").iterdir():
        weights.record(path, source="a test")
    monkeypatch.setattr(Model, "load", lambda model: pytest.fail("it was loaded"))
    prepared = planned(models=("bicubic", "adcsr"), data=str(dataset), weights_dir=tmp_path / "weights")
    assert [m.label for m in prepared.models] == ["bicubic"]
    said = prepared.not_ready["adcsr"]
    assert "missing (" in said and "2 unexpected (" not in said and "1 unexpected (decoder.x)" in said, said
    assert "of another shape (unet.conv_in.bias 3 for 240)" in said and not (tmp_path / "converted").exists()


def test_a_damaged_checkpoint_of_rareflow_is_told_as_early(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "mine")
    with (tmp_path / "mine" / "text.safetensors").open("ab") as file:
        file.write(b"x")
    prepared = planned(models=("bicubic", f"rareflow:checkpoint={tmp_path / 'mine'}"), data=str(dataset))
    (said,) = prepared.not_ready.values()
    assert "text.safetensors has the SHA-256" in said and "truncated or was changed" in said


class _Cuda:
    """A device of 16 images' memory, of which a model's weights take two."""

    total_memory = 16
    held = 0

    def get_device_properties(self, device: str) -> _Cuda:
        return self

    def reset_peak_memory_stats(self, device: str) -> None:
        self.held = 0

    def max_memory_allocated(self, device: str) -> int:
        return self.held

    def is_available(self) -> bool:
        return False


@pytest.mark.parametrize(("breaks_at", "found"), [(99, 8), (8, 4), (2, 1)])
def test_the_largest_batch_that_fits(
    dataset: Path, mine: str, monkeypatch: pytest.MonkeyPatch, breaks_at: int, found: int
) -> None:
    """Twelve of sixteen leave a margin, eighteen do not; one that runs out of memory on the way has found its size."""
    cuda = _Cuda()
    monkeypatch.setattr("torch.cuda", cuda)
    prepared = planned(models=(f"{mine}:batch=4",), data=str(dataset), draws=1)
    (model,) = prepared.models
    upscale = model.adapter.upscale

    def watched(batch: Any) -> Any:
        cuda.held = 2 + len(batch.ids)
        if len(batch.ids) >= breaks_at:
            raise MemoryError
        return upscale(batch)

    monkeypatch.setattr(model.adapter, "upscale", watched)
    task = prepared.protocol.prepare(prepared.dataset.load(prepared.records[0], prepared.protocol.reads))
    assert model.largest_batch(task, at_most=64) == found and model.retreats == []


def test_each_gpu_has_a_process_of_its_own(dataset: Path, tmp_path: Path) -> None:
    """This process on the first, another on the second, and the bytes of one; the model never touches them."""
    (tmp_path / "mine.py").write_text(MINE.replace(
        '        if self.options["load"] == "wrong":',
        '        with open(os.path.join(os.path.dirname(__file__), "devices"), "a") as file:\n'
        '            print(device, file=file)\n'
        '        if self.options["load"] == "wrong":',
    ))  # fmt: skip
    mine = f"{tmp_path / 'mine.py'}:Mine"
    one = planned(models=(mine,), data=str(dataset), device="cpu", workers=0, out=tmp_path / "one")
    predict(one)
    two = planned(models=(mine,), data=str(dataset), device="cpu", out=tmp_path / "two")
    two.models[0].device = "cuda:0"
    predict(dataclasses.replace(two, devices=("cuda:0", "cuda:1")))
    assert (tmp_path / "devices").read_text().split() == ["cpu", "cuda:0", "cuda:1"]
    assert RunFolder(tmp_path / "two" / "mine").sessions()[0]["processes"] == 2
    assert tree(tmp_path / "one" / "mine") == tree(tmp_path / "two" / "mine")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("cuda:0,cuda:0", "expected different GPUs, such as cuda:0,cuda:1"),
        ("cuda:0,cpu", "expected different GPUs"),
        ("cuda:0,cuda:1", "found GPU cuda:0 and GPU cuda:1, expected GPUs of one kind"),
        ("cuda:0,cuda:2", "this machine has 2 usable CUDA devices"),
    ],
)
def test_several_gpus_are_different_ones_of_one_kind(monkeypatch: pytest.MonkeyPatch, names: str, said: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda name: f"GPU {name}")
    with pytest.raises(RfbenchError, match=said):
        resolve_devices(names)


class _Here(Crew[Any, Any]):
    """Of a cluster, though all is done in this process."""

    size = 1

    def __init__(self, job: Job) -> None:
        self._state, self._given = job.begin(), list[tuple[Any, Callable[..., Any], tuple[Any, ...]]]()

    @property
    def waiting(self) -> list[Any]:
        return [key for key, _, _ in self._given]

    def give(self, key: Any, work: Callable[..., Any], *arguments: Any) -> None:
        self._given.append((key, work, arguments))

    def take(self) -> Iterator[tuple[Any, Any]]:
        key, work, arguments = self._given.pop(0)
        yield key, work(self._state, *arguments)

    def close(self, *, finish: bool) -> None:
        pass


def test_failed_images_have_their_tracebacks_from_a_cluster_too(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        MINE.replace("        noise = ", '        raise ValueError("no")\n        noise = ')
    )
    monkeypatch.setattr(Cluster, "crew", lambda cluster, job, what: _Here(job))
    for cluster, name in ((None, "here"), (Cluster(), "there")):
        request: dict[str, Any] = dict(models=(f"{tmp_path / 'mine.py'}:Mine",), data=str(dataset), limit=2)
        predict(planned(**request, device="cpu", workers=0, out=tmp_path / name), cluster=cluster)
        found = RunFolder(tmp_path / name / "mine").sessions()[-1]["tracebacks"]
        assert len(found) == 2 and all('raise ValueError("no")' in text for text in found)


# --- a crew, without processes --------------------------------------------------------------------------------


class _Fake(Crew[int, int]):
    """Does units at once; loses the process at the unit ``lost``."""

    size = 2

    def __init__(self, lost: int | None = None) -> None:
        self._waiting: list[int] = []
        self._lost = lost

    @property
    def waiting(self) -> list[int]:
        return [*self._waiting]

    def give(self, key: int, work: Callable[..., int], *arguments: Any) -> None:
        self._waiting.append(key)

    def take(self) -> Iterator[tuple[int, int]]:
        key = self._waiting[0]
        if key == self._lost:
            raise Lost("a process was ended")
        yield self._waiting.pop(0), key**2

    def close(self, *, finish: bool) -> None:
        raise NotImplementedError


def test_a_crew_takes_from_the_end_and_this_process_from_the_front() -> None:
    units, found = Units(range(6)), dict[int, int]()
    assert units.front() == units.take_front() == 0
    feeder = Feeder(_Fake(), units, int, found.__setitem__)
    feeder.start()
    feeder.join()
    assert feeder.error is None and found == {i: i**2 for i in range(1, 6)} and not len(units)


def test_what_a_lost_process_had_in_hand_is_put_back() -> None:
    units, found = Units(range(6)), dict[int, int]()
    feeder = Feeder(_Fake(lost=3), units, int, found.__setitem__)
    feeder.work()
    assert isinstance(feeder.error, Lost) and sorted(found) == [4, 5]
    assert sorted(iter(units.take_front, None)) == [0, 1, 2, 3]


def test_memory_is_seen() -> None:
    peak = memory.Peak()
    block = bytearray(60_000_000)
    most = peak.seen()
    del block
    assert most > 60_000_000 and memory.resident_bytes() > 10_000_000
    assert (memory.available_bytes() or 0) > 0
    assert memory.shown(1_250_000_000) == "1.2 GB" and memory.shown(61_000_000) == "61 MB"
    assert json.dumps(memory.device_peak_bytes("cpu")) == "null"


# --- what it costs --------------------------------------------------------------------------------------------


def test_costs_are_remembered_and_shown(dataset: Path, tmp_path: Path, mine: str) -> None:
    """By model and metric, over all sessions; a broken host.json is no cost, and never an error."""
    options: dict[str, Any] = dict(
        models=(mine, "bicubic"), data=str(dataset), workers=0, draws=2, out=tmp_path / "out"
    )
    run(metrics=("psnr_rgb",), limit=2, **options)
    run(metrics=("psnr_rgb", "crps"), limit=2, **options)
    found = costs([RunFolder(tmp_path / "out" / name) for name in ("mine", "bicubic")])
    assert [(c.name, c.count) for c in found.models] == [("mine", 2), ("bicubic", 2)]
    assert all(c.each_s and c.host_bytes and c.host_bytes > 30e6 and c.device_bytes is None for c in found.models)
    # Four images of each model, in both folders' records of the two sessions.
    assert {c.name: c.count for c in found.metrics} == {"psnr_rgb": 8, "crps": 8}
    shown = CliRunner().invoke(table, [str(tmp_path / "out"), "--cost"], standalone_mode=False)
    assert "s an image" in shown.output and "psnr_rgb" in shown.output and re.search(" [MG]B", shown.output)
    lines = CliRunner().invoke(table, [str(tmp_path / "out"), "--cost", "--format", "csv"], standalone_mode=False)
    assert [line.split(",")[:3] for line in lines.output.splitlines()[1:3]] == [
        ["model", "bicubic", "2"], ["model", "mine", "2"],
    ]  # fmt: skip
    (tmp_path / "out" / "mine" / "host.json").write_text('{"sessions": [{"stage": "predict", "predicted": "many"}, 3]}')
    assert costs([RunFolder(tmp_path / "out" / "mine")]).models[0].each_s is None
    with pytest.raises(RfbenchError, match="--cost is a table of its own, which --ci does not go with"):
        table.main([str(tmp_path / "out"), "--cost", "--ci"], standalone_mode=False)
