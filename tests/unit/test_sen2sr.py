"""SEN2SRLite: its size, its layers, its constraint, its files, and its answers with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from baselines.sen2sr import network
from baselines.sen2sr.network import FULL, SMALL, Merged, Network, constrained, usual_mask
from baselines.sen2sr.spec import MASK
from baselines.sen2sr.spec import NETWORK as FILE
from bench import weights
from bench.core.errors import RfbenchError
from bench.models import randomise
from bench.models.call import Model
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired
from tests.systems import answer, check_sizes, task

TINY = "sen2sr-lite:weights=random,size=tiny"


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(TINY)
    found.load()
    return found


def test_the_published_size_has_upstream_s_names_and_bytes() -> None:
    with torch.device("meta"):
        net = Network(*FULL)
    state = net.state_dict()
    assert len(state) == 20 * 10 + 4  # 20 layers of five convolutions each, and two plain ones
    stored = 4 * sum(t.numel() for t in state.values())
    # The published file's size: the tensors, and a header of names.
    assert stored == 2_289_344 and 2_305_000 < stored + 100 * len(state) + 8 < 2_315_000
    assert {"conv_1.sk.weight", "blocks.5.c3_r.conv.1.bias", "conv_2.eval_conv.weight", "upsampler.0.bias"} <= set(
        state
    )


def test_the_layer_that_runs_equals_those_that_were_trained() -> None:
    layer = Merged(3, 5)
    randomise(layer, "layer")
    layer.merge()
    x = torch.randn(2, 3, 9, 8)
    trained = layer.conv(x) + layer.sk(x)[..., 1:-1, 1:-1]  # without padding: it is padded behind the first bias
    torch.testing.assert_close(layer(x)[..., 1:-1, 1:-1], trained, atol=1e-5, rtol=1e-5)


def test_blocks_between_the_first_and_the_last_have_no_part() -> None:
    net = Network(8, 3)
    randomise(net, "net")
    net.merge()
    x = torch.rand(1, 4, 8, 8)
    before = net(x)
    for changes, block in ((False, 1), (True, 0), (True, 2)):
        randomise(net.blocks[block], f"other {block}")
        net.merge()
        assert torch.equal(before, net(x)) != changes
        before = net(x)


def test_the_constraint_keeps_the_lr_s_frequencies_and_the_answer_s() -> None:
    lr, sr = torch.rand(1, 4, 16, 16), torch.rand(1, 4, 64, 64)
    mask = usual_mask(64)
    found = constrained(sr, lr, mask)
    spectra = [
        torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3))
        for x in (found, F.interpolate(lr, size=(64, 64), mode="bicubic", antialias=True), sr)
    ]
    low = mask.bool()
    assert mask[32, 32] == 1 and mask[32, 40] == 1 and mask[32, 41] == 0
    torch.testing.assert_close(spectra[0][..., low], spectra[1][..., low], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(spectra[0][..., ~low], spectra[2][..., ~low], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.mean((2, 3)), lr.mean((2, 3)), atol=1e-3, rtol=0)


def write_files(folder: Path, net: Network, mask: torch.Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / FILE)
    save_file({"weights": mask}, folder / MASK)
    for file in (FILE, MASK):
        weights.record(folder / file, source="")


def test_upstream_s_files_load_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FULL", SMALL)
    original = Network(*SMALL)
    randomise(original, "sen2sr-lite")
    write_files(tmp_path, original, usual_mask(512))
    published, random = Model("sen2sr-lite", weights_dir=tmp_path), Model(TINY)
    published.check_ready()
    asked = task(Bicubic4x(), (24, 30))
    found = []
    for each in (published, random):
        each.load()
        found.append(answer(each, asked).arrays["mean"])
    np.testing.assert_array_equal(*found)
    assert published.label == "sen2sr-lite" and random.label == "sen2sr-lite-random-tiny"


@pytest.mark.parametrize(
    ("mask", "drop", "message"),
    [
        (torch.ones(256, 256), "", r"expected one tensor 'weights' of 512x512"),
        (torch.ones(512, 512), "conv_cat.bias", r"1 missing \(conv_cat.bias\)"),
    ],
)
def test_wrong_files_are_one_line(
    mask: torch.Tensor, drop: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "FULL", SMALL)
    net = Network(*SMALL)
    write_files(tmp_path, net, mask)
    if drop:
        save_file({k: v.contiguous() for k, v in net.state_dict().items() if k != drop}, tmp_path / FILE)
        (tmp_path / f"{FILE}{weights.RECORDED}").unlink()
        weights.record(tmp_path / FILE, source="")
    with pytest.raises(RfbenchError, match=message) as caught:
        Model("sen2sr-lite", weights_dir=tmp_path).load()
    assert "\n" not in str(caught.value)


def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model)


def test_nir_is_read_and_given_and_the_constraint_counts(model: Model) -> None:
    asked = task(Paired(), (12, 16))
    with_it = answer(model, asked)
    assert with_it.bands == ("R", "G", "B", "NIR") and with_it.unit == "reflectance"
    free = Model(f"{TINY},constraint=no")
    free.load()
    assert not np.array_equal(with_it.arrays["mean"], answer(free, asked).arrays["mean"])
    assert Model("sen2sr-lite:constraint=no").label == "sen2sr-lite-unconstrained"
    (found,) = model.predict([task(Paired(), (12, 16), bands=("R", "G", "B"))], run_seed=0, draws=1)
    assert "band NIR is needed" in str(found)


@pytest.mark.parametrize("options", ["constraint=maybe", "size=tiny", "mask=x"])
def test_bad_options_are_one_line(options: str) -> None:
    with pytest.raises(RfbenchError, match=r"constraint|size=tiny"):
        Model(f"sen2sr-lite:{options}")
