"""What adapters of published systems share: random weights never under the system's name, packages, check options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench import doctor
from bench.check.models import check_model
from bench.cli.ls import _models
from bench.cli.run import command as run
from bench.core import registry
from bench.core.errors import RfbenchError, Unavailable
from bench.models import (
    RANDOM_TINY,
    WEIGHTS_OPTIONS,
    Batch,
    ModelSpec,
    Prediction,
    Published,
    choice,
    number,
    resize,
    whole_number,
)
from bench.models.call import Model
from bench.models.ready import lacking, missing, next_step
from tests.conftest import write_dataset
from tests.runs import planned

WEIGHTS = {"theirs.pth": {"bytes": 2_000_000_000, "sha256": "", "licence": "MIT", "source": "https://x.y/theirs.pth"}}
THEIRS = ModelSpec(
    name="theirs", adapter=f"{__name__}:Theirs", summary="x", scale_factors=(4,), weights=WEIGHTS,
    default_options=WEIGHTS_OPTIONS, check_options=RANDOM_TINY, licence="MIT",
)  # fmt: skip


class Theirs(Published):
    system = "theirs"

    def load(self, device: str, dtype: str) -> None:
        if not self.is_random:
            self.weights_path("theirs.pth")

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> dict[str, ModelSpec]:
    monkeypatch.setenv("HOME", str(tmp_path))
    specs = {"theirs": THEIRS}
    load, points = registry.load, registry.points
    point = points("models")["bicubic"]
    monkeypatch.setattr(registry, "load", lambda k, n: specs[n] if k == "models" and n in specs else load(k, n))
    monkeypatch.setattr(
        registry, "points", lambda k: points(k) | (dict.fromkeys(specs, point) if k == "models" else {})
    )
    return specs


def test_random_weights_need_no_files_and_have_another_name(specs: Any) -> None:
    real, tiny, random = Model("theirs"), Model("theirs:weights=random,size=tiny"), Model("theirs:weights=random")
    assert [m.label for m in (real, tiny, random)] == ["theirs", "theirs-random-tiny", "theirs-random-full"]
    assert missing(real.spec) == ["theirs.pth (about 2.0 GB)"] and missing(tiny.spec) == []
    assert next_step(real.spec) == "rfbench weights fetch theirs"
    tiny.check_ready()
    with pytest.raises(Unavailable, match=r"weights missing: theirs.pth \(about 2.0 GB\).*weights fetch"):
        real.check_ready()
    assert [m.spec.unlike_paper for m in (real, tiny, random)] == ["", "random weights", "random weights"]
    identities = [m.identity() for m in (real, tiny, random)]
    assert len({str(i) for i in identities}) == 3 and identities[0]["spec"]["weights"] == {"theirs.pth": ""}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("weights=some", "option weights: found 'some', expected published or random"),
        ("size=tiny", "size=tiny has no published weights; write theirs:weights=random,size=tiny"),
        ("size=large,weights=random", "option size: found 'large', expected full or tiny"),
    ],
)
def test_wrong_options_are_one_line(specs: Any, options: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        Model(f"theirs:{options}")


def test_check_takes_the_small_network_unless_told_otherwise(specs: Any) -> None:
    report = check_model("theirs")
    assert report.exit_code == 0 and report.name == "theirs:weights=random,size=tiny"
    assert any("called 'theirs-random-tiny' in tables" in line.found for line in report.lines)
    report = check_model("theirs:weights=published")
    assert (
        report.missing and "weights missing: theirs.pth" in next(x for x in report.lines if x.check == "loaded").found
    )
    specs["theirs"] = dataclasses.replace(THEIRS, check_options={"size": "tiny", "sieze": "x"})
    (line,) = (x for x in check_model("theirs:weights=random").lines if x.status == "fail")
    assert "check_options names ['sieze']" in line.found


def test_what_was_written_anew_says_so_in_tables(specs: Any) -> None:
    specs["theirs"] = dataclasses.replace(THEIRS, reimplementation="section 3 of Someone 2024")
    assert Model("theirs").label == "theirs-reimplemented"
    assert Model("theirs:weights=random").label == "theirs-random-full"


def test_a_missing_package_is_known_before_anything_is_loaded(specs: Any) -> None:
    assert lacking(("numpy>=1", "click>=8")) == []
    requires = ("nowhere-to-be-found==1.0.8",)
    assert lacking(requires) == ["the package nowhere-to-be-found==1.0.8 is not installed"]
    (text,) = lacking(("numpy==0.1",))
    assert text.startswith("the package numpy is here in version ") and text.endswith("expected numpy==0.1")
    specs["theirs"] = dataclasses.replace(THEIRS, requires=requires, extra="theirs")
    model = Model("theirs:weights=random")
    with pytest.raises(Unavailable, match=r"is not installed; pip install 'rfbench\[theirs\]' installs it"):
        model.check_ready()
    assert missing(model.spec) == lacking(requires) and next_step(model.spec) == "pip install 'rfbench[theirs]'"
    report = check_model("theirs")
    assert report.missing and not report.count("fail")
    specs["theirs"] = dataclasses.replace(THEIRS, requires=requires)
    with pytest.raises(Unavailable, match=r"; pip install nowhere-to-be-found==1\.0\.8 installs it"):
        Model("theirs:weights=random").check_ready()


@pytest.mark.parametrize("text", ["", "0", "-1", "1001", "1.5", "1e2", "٣", "9" * 30, "nan"])
def test_numbers_of_options_are_checked(text: str) -> None:
    with pytest.raises(RfbenchError, match=r"option steps: found .*, expected a whole number from 1 to 1000"):
        whole_number({"steps": text}, "steps", 1, 1000)
    assert whole_number({"steps": "1000"}, "steps", 1, 1000) == 1000
    with pytest.raises(RfbenchError, match=r"option eta: found .*, expected a number from 0 to 1"):
        number({"eta": "x" + text}, "eta", 0, 1)
    for wrong in ("nan", "inf", "-0.1", "1.01"):
        with pytest.raises(RfbenchError):
            number({"eta": wrong}, "eta", 0, 1)
    assert number({"eta": "0.95"}, "eta", 0, 1) == 0.95
    assert choice({"nir": "band"}, "nir", "band", "copy_red") == "band"


def test_a_run_leaves_out_what_is_not_ready_and_strict_stops_before_anything_is_computed(
    specs: Any, tmp_path: Path
) -> None:
    others = {"weights": {"others.pth": WEIGHTS["theirs.pth"] | {"bytes": 5_000_000}}, "name": "others"}
    specs["others"] = dataclasses.replace(THEIRS, **others)
    data = write_dataset(tmp_path / "data", count=1)
    words = ["--protocol", "paired", "--data", str(data), "--metrics", "psnr_rgb", "--workers", "0"]
    words += [w for name in ("theirs", "others", "bicubic") for w in ("--model", name)] + [
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(run, [*words, "--strict"], standalone_mode=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.return_value == 2 and len(errors) == 2 and not done.stdout and not (tmp_path / "out").exists()
    assert errors[0].startswith(
        "error: model theirs: weights missing: theirs.pth (about 2.0 GB); 'rfbench weights fetch"
    )
    assert errors[1].startswith("error: model others: weights missing: others.pth (about 5 MB);")
    done = CliRunner().invoke(run, words, standalone_mode=False)
    assert done.return_value == 2 and "bicubic" in done.stdout and "theirs" not in done.stdout, done.stderr
    assert sum(line.startswith("warning: left out: model ") for line in done.stderr.splitlines()) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bicubic", "report"]
    with pytest.raises(Unavailable, match=r"model theirs: weights missing.*\(2 of 2 models are not ready\)"):
        planned(models=("theirs", "others"), data=str(data))


def test_ls_and_doctor_say_what_is_missing_and_how_large_it_is(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda kind: ["bicubic", "theirs"])
    headings, rows = _models(None)
    here = {row[0]: row[headings.index("here")] for row in rows}
    assert here == {"bicubic": "ready", "theirs": "theirs.pth (about 2.0 GB) (rfbench weights fetch theirs)"}
    monkeypatch.setattr(doctor.parts, "_ours", lambda kind: ["bicubic", "theirs"])
    ready, line = doctor.parts.models(None)
    assert ready.found == "ready: bicubic" and line.state == "note" and line.next_step == "rfbench weights fetch theirs"
    assert line.found == "theirs (x4, R G B, MIT) lacks theirs.pth (about 2.0 GB)"
