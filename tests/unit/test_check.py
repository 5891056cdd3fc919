"""``bench.check`` against parts that break one promise each: the line that should fail does, and says why."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.check import Line, Report, models
from bench.check.datasets import check_dataset
from bench.check.metrics import check_metric
from bench.check.models import check_model
from bench.core.errors import RfbenchError
from bench.metrics.base import Setting
from bench.metrics.scorer import metric_class
from tests.commands import rfbench
from tests.conftest import install_plugin, installed, write_dataset, write_rows

MODELS = """
import numpy as np
from bench.models import Adapter, ModelSpec, Prediction, RfbenchError, resize

def up(batch):
    return np.stack([resize(i, batch.size) for i in batch.images])

class Good(Adapter):
    def upscale(self, batch):
        return Prediction(mean=up(batch))
class Raises(Adapter):
    def upscale(self, batch):
        return Prediction(mean=up(batch)[:, ::0])
class Exits(Adapter):
    def load(self, device, dtype):
        raise SystemExit(3)
    def upscale(self, batch): ...
class Loud(Adapter):
    def upscale(self, batch):
        print("hello from a model")
        return Prediction(mean=up(batch))
class Centred(Adapter):  # a network's [-1, 1] that was not brought back
    def upscale(self, batch):
        return Prediction(mean=up(batch) * 2 - 1)
class Neighbours(Adapter):  # a batch norm in training mode
    def upscale(self, batch):
        return Prediction(mean=up(batch) + np.float32(0.1) * batch.images.mean())
class Careless(Adapter):
    def upscale(self, batch):
        return Prediction(mean=(up(batch) + np.random.standard_normal((*batch.size, 3)) * 0.01).astype(np.float32))
class Counter(Adapter):
    calls = 0
    def upscale(self, batch):
        self.calls += 1
        return Prediction(mean=up(batch) + np.float32(0.001 * self.calls))
class Writer(Adapter):
    def upscale(self, batch):
        mean = up(batch)
        batch.images[:] = 0
        return Prediction(mean=mean)
class OneNoise(Adapter):  # the same noise for every image
    def upscale(self, batch):
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((batch.draws, *batch.size, 3)).astype(np.float32)
        return Prediction(samples=up(batch)[:, None] + np.float32(0.01) * noise[None])
class Mute(Adapter):
    def upscale(self, batch):
        assert all(batch.captions), "needs a caption"
        return Prediction(mean=up(batch))
class Tileless(Adapter):
    def upscale(self, batch):
        assert batch.offset == (0, 0), "cannot tile"
        return Prediction(mean=up(batch))
class Threads(Adapter):
    def load(self, device, dtype):
        import torch
        torch.set_num_threads(torch.get_num_threads() + 1)
    def upscale(self, batch):
        return Prediction(mean=up(batch))
class Small(Adapter):
    def upscale(self, batch):
        assert min(batch.images.shape[1:3]) >= 4, "too small"
        return Prediction(mean=up(batch))
class Needy(Adapter):
    def load(self, device, dtype):
        raise RfbenchError("weights missing: big.pth (1 GB); fetch them")
    def upscale(self, batch): ...
class Restless(Adapter):
    def identity(self):
        return {"made": str(id(self))}
    def upscale(self, batch):
        return Prediction(mean=up(batch))
class Half(Adapter):
    def upscale(self, batch):
        return Prediction(mean=up(batch).astype(np.float64))

def spec(name, **more):
    more |= {"summary": "to be found out", "licence": "CC0"}
    return ModelSpec(name=name, adapter=f"broken_models:{name.title()}", **more)

for _name, _more in {
    "good": {}, "raises": {}, "exits": {}, "loud": {}, "centred": {}, "neighbours": {}, "careless": {}, "counter": {},
    "writer": {}, "onenoise": {"stochastic": True}, "mute": {"supports_prompt": True},
    "tileless": {"max_side_px": 16}, "threads": {}, "small": {}, "needy": {}, "restless": {}, "half": {},
}.items():
    globals()[_name.upper()] = spec(_name, **_more)
Onenoise = OneNoise
NOSPEC = Good
WRONG = ModelSpec(name="other", adapter="nowhere", unit="radiance", scale_factors=[4], multiple=0,
                  bands=("red", "red"))
ABSENT = ModelSpec(name="absent", adapter="broken_models:Nothing", summary="an adapter that is not there")
"""
NAMES = [*re.findall(r'"(\w+)": \{', MODELS), "nospec", "wrong", "absent"]
METRICS = """
import numpy as np
from bench.metrics.base import Metric, SetScore

class Base(Metric):
    title, direction, group, summary = "a metric", "down", "fidelity", "to be found out"
    def value(self, estimate, reference, state):
        return float(np.abs(estimate.display - reference.display).mean())
class Fine(Base):
    name = "fine"
    bounds, perfect, symmetric = (0.0, 1.0), 0.0, True
class Unbounded(Base):
    name = "unbounded"
    bounds = (0.0, 0.001)
class Imperfect(Base):
    name = "imperfect"
    perfect = 1.0
class Lopsided(Base):
    name = "lopsided"
    symmetric = True
    def value(self, estimate, reference, state):
        return float((np.abs(estimate.display - reference.display) * reference.display).mean())
class Strided(Base):  # as one that hands the memory to another language
    name = "strided"
    def value(self, estimate, reference, state):
        x, y = (a.display.ravel("K").astype(np.float64) for a in (estimate, reference))
        return float((np.abs(x - y) * np.linspace(0, 1, x.size)).mean())
class Reversed(Base):
    name, direction = "reversed", "up"
class Remembering(Base):
    name = "remembering"
    total = 0.0
    def value(self, estimate, reference, state):
        self.total += super().value(estimate, reference, state)
        return self.total
class Drawing(Base):
    name = "drawing"
    def value(self, estimate, reference, state):
        return super().value(estimate, reference, state) + np.random.random()
class Crashing(Base):
    name = "crashing"
    def value(self, estimate, reference, state):
        if min(estimate.size) < 8:
            raise IndexError("kernel larger than the image")
        return super().value(estimate, reference, state)
class Masking(Base):
    name, masks = "masking", True
class Overriding(Base):
    name = "overriding"
    def assess(self, estimate, reference):
        from bench.metrics.base import Score
        return Score(float(np.nan_to_num(np.abs(estimate.display - 0.5)).mean()))
class Infinite(Base):
    name, direction = "infinite", "up"
    def value(self, estimate, reference, state):
        with np.errstate(divide="ignore"):
            return float(-10 * np.log10(super().value(estimate, reference, state)))
class Unstable(Base):
    name = "unstable"
    def identity(self):
        return f"unstable|{id(self)}|r1"
class Worded(Base):
    name, direction, needs = "worded", "lower", ("references",)
class Writing(Base):
    name = "writing"
    def value(self, estimate, reference, state):
        estimate.display[:] = 0.5
        return 1.0
class Ordered(Base):
    name, level = "ordered", "set"
    def features(self, estimate, reference, state):
        return {"x": np.array([np.abs(estimate.display - reference.display).mean()])}
    def reduce(self, features):
        return SetScore(float(sum(f["x"][0] / (i + 1) for i, f in enumerate(features))))
"""
METRIC_NAMES = re.findall(r'name(?:, \w+)*, ?\w* = "(\w+)"|name = "(\w+)"|name, \w+(?:, \w+)* = "(\w+)"', METRICS)
DATASETS = """
import numpy as np
from bench.core.image import Image
from bench.data.dataset import Dataset, Pair, Record, Side

class Base(Dataset):
    name, description, licence = "base", "grey", "CC0"
    side = Side(unit="display")
    def records(self, split):
        return [Record(f"i{i}", f"s{i}", split, sides={"lr": self.side, "hr": self.side}) for i in range(2)]
    def image(self, n):
        return Image(np.full((n, n, 3), 0.5, np.float32), "display", ("R", "G", "B"), np.ones((n, n), bool))
    def load(self, record, parts=()):
        return Pair(record, self.image(4), self.image(8))
    def fingerprint(self, records):
        return "f-" + "-".join(r.id for r in records)
class Fine(Base): ...
class Twice(Base):
    def records(self, split):
        return super().records(split) * 2
class Sideless(Base):
    def records(self, split):
        return [Record("a", "a", split)]
class Restless(Base):
    def fingerprint(self, records):
        return str(np.random.random())
class Constant(Base):
    def fingerprint(self, records):
        return "always"
class Numbers(Base):
    def image(self, n):
        return Image(np.full((n, n, 3), 128, np.float32), "display", ("R", "G", "B"), np.ones((n, n), bool))
class Units(Base):
    side = Side(unit="reflectance")
class Names(Base):
    def image(self, n):
        return Image(np.full((n, n, 3), 0.5, np.float32), "display", ("red", "G", "B"), np.ones((n, n), bool))
class Shrinking(Base):
    def load(self, record, parts=()):
        return Pair(record, self.image(8), self.image(4))
class Drawn(Base):
    def image(self, n):
        values = np.random.random((n, n, 3)).astype(np.float32)
        return Image(values, "display", ("R", "G", "B"), np.ones((n, n), bool))
class Torn(Base):
    def load(self, record, parts=()):
        if record.id == "i1":
            raise OSError("the file is truncated")
        return super().load(record)
def raising():
    raise ValueError("no such\\nfolder")
def other():
    return 5
"""
DATASET_NAMES = [n.lower() for n in re.findall(r"class (\w+)\(Base\)", DATASETS)]


def entry_points() -> str:
    lines = ["[rfbench.models]", *(f"{n} = broken_models:{n.upper()}" for n in NAMES), "gone = broken_gone:SPEC"]
    names = [n for found in METRIC_NAMES for n in found if n]
    lines += ["[rfbench.metrics]", *(f"{n} = broken_metrics:{n.title()}" for n in names), "gone = broken_gone:X"]
    lines += ["[rfbench.datasets]", *(f"{n} = broken_datasets:{n.title()}" for n in DATASET_NAMES)]
    lines += ["raising = broken_datasets:raising", "other = broken_datasets:other"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module", autouse=True)
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Plugins that break one promise each, installed for this file."""
    site = install_plugin(tmp_path_factory.mktemp("site"), MODELS, entry_points(), "broken_models")
    (site / "broken_metrics.py").write_text(METRICS)
    (site / "broken_datasets.py").write_text(DATASETS)
    run, said = subprocess.run, dict[tuple[str, ...], Any]()

    def once(words: list[str], **options: Any) -> Any:
        """All broken models are of one module: what it imports is looked at once."""
        if (asked := tuple(words)) not in said:
            said[asked] = run(words, **options)
        return said[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "subprocess", SimpleNamespace(run=once, SubprocessError=subprocess.SubprocessError))
        with installed(site, "broken_models", "broken_metrics", "broken_datasets"):
            yield site


@functools.cache
def report_of(check: Callable[[str], Report], name: str) -> Report:
    """A part's report, of which several tests read a line each."""
    return check(name)


def failed(report: Report) -> dict[str, Line]:
    assert report.exit_code == (1 if report.count("fail") else 2 if report.missing else 0)
    for line in report.lines:
        assert "\n" not in str(line)
        assert (line.status == "fail") == bool(line.expected) == bool(line.do)
    return {line.check: line for line in report.lines if line.status == "fail"}


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("raises", "answer", "ValueError: slice step cannot be zero (broken_models.py line 13, upscale)"),
        ("exits", "loaded", "SystemExit: 3"),
        ("centred", "range", "outside [0, 1]"),
        ("neighbours", "batch", "an image alone and in a batch of three differ by up to"),
        ("careless", "global seeds", "two global seeds differ by up to 0.0"),
        ("careless", "draws", "the same seed, id and draw, asked twice differ"),
        ("counter", "draws", "differ by up to 0.001"),
        ("writer", "input kept", "wrote into batch.images"),
        ("onenoise", "draws", "two seeds and two ids give one image"),
        ("mute", "captions", "AssertionError: needs a caption"),
        ("tileless", "tiles", "AssertionError: cannot tile"),
        ("threads", "threads", "the model set torch's threads from"),
        ("small", "tiny images", "an LR image of 1x1 px to 5x5 px: AssertionError: too small"),
        ("restless", "identity", "two of the same model have two identities"),
        ("half", "answer", "mean is float64, expected float32"),
        ("nospec", "registered", "broken_models:NOSPEC is a ABCMeta"),
        ("wrong", "spec", "it calls itself 'other' and is registered as 'wrong'"),
        ("wrong", "spec", "adapter='nowhere' is not package.module:Class"),
        ("wrong", "spec", "unit='radiance' is none of display, reflectance, native"),
        ("wrong", "spec", "scale_factors=[4] are not whole numbers"),
        ("wrong", "spec", "multiple=0 is not a whole number of 1 or more"),
        ("wrong", "spec", "bands=('red', 'red') are not different canonical names"),
        ("absent", "constructed", "AttributeError: module 'broken_models' has no attribute 'Nothing'"),
        ("gone", "registered", "ModuleNotFoundError: No module named 'broken_gone'"),
    ],
)
def test_a_broken_model_fails_where_it_is_broken(name: str, check: str, words: str) -> None:
    import torch

    threads = torch.get_num_threads()
    lines = failed(report_of(check_model, name))
    torch.set_num_threads(threads)
    assert words in lines[check].found, lines


def test_a_good_model_passes_and_what_is_missing_is_no_failure() -> None:
    assert not failed(check_model("good"))
    report = check_model("needy")
    assert report.missing and report.exit_code == 2 and not failed(report)
    (line,) = (line for line in report.lines if line.check == "loaded")
    assert line.found == "weights missing: big.pth (1 GB); fetch them"


def test_what_a_model_prints_is_not_part_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert not failed(check_model("loud", tell=print))
    out, err = capsys.readouterr()
    assert "hello from a model" not in out and "hello from a model" in err
    assert out.count("\n") == 18


def test_a_heavy_spec_is_told(tmp_path: Path) -> None:
    code = MODELS.replace("import numpy as np", "import numpy as np\nimport matplotlib", 1)
    with installed(install_plugin(tmp_path, code, "[rfbench.models]\nheavy = heavy:GOOD\n", "heavy"), "heavy"):
        assert "importing heavy imports matplotlib" in failed(check_model("heavy"))["light"].found


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("reversed", "direction", "with little and with much noise"),
        ("reversed", "identical", "0 and 0.0"),
        ("remembering", "repeatable", "the same images give"),
        ("remembering", "order", "alone, in a row and in another order"),
        ("drawing", "global seeds", "with the global generators in two states"),
        ("crashing", "sizes", "images of 1x1 px: IndexError: kernel larger than the image"),
        ("masking", "no data", "when only pixels without data change"),
        ("overriding", "what is absent", "a number without reference"),
        ("overriding", "not finite", "of an image with NaN"),
        ("infinite", "identical", "a reason and "),
        ("unstable", "identity", "two of one metric: unstable|"),
        ("worded", "attributes", "direction='lower' is none of up, down; needs names references"),
        ("writing", "input kept", "the metric wrote into its images"),
        ("ordered", "order", "in another order"),
        ("overriding", "wrong input", "a number of another size than the reference's"),
        ("unbounded", "bounds", "0."),
        ("imperfect", "identical", "0 for identical images"),
        ("lopsided", "symmetry", "when prediction and reference are exchanged"),
        ("strided", "types", "for rows and for columns that lie together in memory"),
        ("unstable", "rebuilt", "found no q8 or qnone"),
        ("gone", "registered", "ModuleNotFoundError"),
    ],
)
def test_a_broken_metric_fails_where_it_is_broken(name: str, check: str, words: str) -> None:
    lines = failed(report_of(check_metric, name))
    assert words in lines[check].found, lines


def test_a_good_metric_passes() -> None:
    report = check_metric("fine")
    assert report.exit_code == 0 and report.count("skip") == 0, report.lines


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("twice", "ids", "i0, i1 more than once"),
        ("sideless", "sides", "no Side for a"),
        ("restless", "fingerprint", "for the same images"),
        ("constant", "fingerprint", "the same fingerprint with an image less"),
        ("numbers", "values", "display from 128 to 128, not from 0 to 1"),
        ("units", "units", "i0 lr: display, declared reflectance"),
        ("names", "bands", "i0 lr: red, G, B"),
        ("shrinking", "scale", "i0: LR 8x8 px and HR 4x4 px"),
        ("drawn", "repeatable", "i0 lr differs when read again"),
        ("torn", "images", "1 problem: i1: OSError: the file is truncated (broken_datasets.py line"),
        ("raising", "registered", "ValueError: no such folder"),
        ("other", "registered", "broken_datasets:other gives a int"),
    ],
)
def test_a_broken_dataset_fails_where_it_is_broken(name: str, check: str, words: str) -> None:
    lines = failed(report_of(check_dataset, name))
    assert words in lines[check].found, lines


def test_a_folder_with_a_missing_file_and_a_broken_manifest(tmp_path: Path) -> None:
    assert not failed(check_dataset("fine"))
    folder = write_dataset(tmp_path / "d")
    (folder / "hr/im2.npy").unlink()
    lines = failed(check_dataset(str(folder)))
    assert set(lines) == {"images"} and "im2" in lines["images"].found
    write_rows(folder, [{"id": "a", "nonsense": "1"}])
    lines = failed(check_dataset(str(folder)))
    assert "unknown column 'nonsense'" in lines["registered"].found


@pytest.mark.parametrize("check", [check_model, check_metric, check_dataset])
def test_an_unknown_name_is_an_error_with_the_nearest(check: object) -> None:
    with pytest.raises(RfbenchError, match="did you mean"):
        check({check_model: "bicubc", check_metric: "psnr", check_dataset: "scenez"}[check])  # type: ignore[operator, index]


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(RfbenchError, match="unknown option of model good 'steps'"):
        check_model("good:steps=2")
    with pytest.raises(RfbenchError, match="--limit: found 0"):
        check_dataset("scenes", limit=0)


def test_the_command_s_exit_codes_and_json(broken: Path) -> None:
    done = rfbench("check", "metric", "fine", "--json", site=broken)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["format"] == 1 and found["held"] and found["checks"][0]["status"] == "pass"
    done = rfbench("check", "dataset", "raising", site=broken)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("fail  registered") and ", fingerprint, images, units" in done.stdout
    assert last == "dataset raising: 0 held, 1 failed, 1 skipped"
    done = rfbench("check", "metric", "fin", site=broken)
    assert done.returncode == 2 and "did you mean fine" in done.stderr and not done.stdout


def test_a_metric_of_photographs_shows_its_floor_and_its_ceiling() -> None:
    """NIQE likes HR scenes better than noise; metrics without words on satellite images are not asked."""
    from bench.check.extent import extent, has_extent

    assert has_extent(metric_class("fid_tf")) and has_extent(metric_class("pyiqa:musiq"))
    assert not any(has_extent(metric_class(name)) for name in ("psnr_rgb", "nll", "niqe_ref"))
    found = dict(extent(lambda: metric_class("niqe")(Setting())))
    assert list(found) == ["HR images", "HR images of other places", "noise", "unrelated photographs"]
    numbers = {what: value for what, value in found.items() if value is not None}
    assert numbers.keys() == found.keys() and max(numbers, key=lambda what: numbers[what]) == "noise"
