"""SEN2SRLite and SEN2SR: sizes, layers, the scan, the constraint, files, and answers with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save, save_file

from baselines.sen2sr import mamba, network
from baselines.sen2sr.adapter import Sen2sr
from baselines.sen2sr.network import FULL, SMALL, Merged, Network, constrained, usual_mask
from baselines.sen2sr.spec import LARGE_MASK, LARGE_NETWORK, MASK, SEN2SR_LITE
from baselines.sen2sr.spec import NETWORK as FILE
from baselines.sen2sr.upstream import plain_scan
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
    file = save({k: torch.zeros(t.shape) for k, t in state.items()})
    assert len(file) == SEN2SR_LITE.weights[FILE]["bytes"]
    assert len(save({"weights": usual_mask(512)})) == SEN2SR_LITE.weights[MASK]["bytes"]
    assert {"conv_1.sk.weight", "blocks.5.c3_r.conv.1.bias", "conv_2.eval_conv.weight", "upsampler.0.bias"} <= set(
        state
    )


def test_the_large_network_has_upstream_s_names() -> None:
    with torch.device("meta"):
        state = mamba.Network().state_dict()
    assert len(state) == 1228 and sum(t.numel() for t in state.values()) == 13_759_444
    assert {
        "patch_embed.norm.weight", "layers.5.residual_group.blocks.7.self_attention.A_logs", "upsample.2.bias",
        "layers.0.residual_group.blocks.0.conv_blk.cab.3.attention.1.weight", "layers.3.conv.weight",
    } <= set(state)  # fmt: skip


@pytest.mark.parametrize("length", [1, 127, 300])
def test_the_scan_in_chunks_is_the_scan_step_by_step(length: int) -> None:
    draw = torch.Generator().manual_seed(0)
    n, paths, channels, states = 2, 3, 4, 5
    u, delta = (torch.randn(n, paths, channels, length, generator=draw, dtype=torch.double) for _ in range(2))
    b, c = (torch.randn(n, paths, states, length, generator=draw, dtype=torch.double) for _ in range(2))
    a = -10 * torch.rand(paths, channels, states, generator=draw, dtype=torch.double)
    found = mamba.selective_scan(u, torch.nn.functional.softplus(delta), a, b, c)
    none = torch.zeros(paths * channels, dtype=torch.double)
    expected = plain_scan(u.flatten(1, 2), delta.flatten(1, 2), a.flatten(0, 1), b, c, none, delta_bias=none)
    torch.testing.assert_close(found.flatten(1, 2), expected, rtol=1e-10, atol=1e-12)


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


@pytest.fixture
def any_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listed files without their published hashes, which no made-up file has."""
    for file, entry in SEN2SR_LITE.weights.items():
        monkeypatch.setitem(SEN2SR_LITE.weights, file, entry | {"sha256": ""})


def write_files(folder: Path, net: torch.nn.Module, mask: torch.Tensor, files: tuple[str, str] = (FILE, MASK)) -> None:
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / files[0])
    save_file({"weights": mask}, folder / files[1])
    for file in files:
        weights.record(folder / file, source="")


@pytest.mark.usefixtures("any_hash")
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


def test_the_large_network_s_files_load_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "FULL", mamba.SMALL)
    monkeypatch.setattr("baselines.sen2sr.adapter.WINDOW_PX", 32)
    random = Model("sen2sr:weights=random,size=tiny")
    random.load()
    assert isinstance(random.adapter, Sen2sr) and random.adapter.network is not None
    write_files(tmp_path, random.adapter.network, usual_mask(128), (LARGE_NETWORK, LARGE_MASK))
    published = Model("sen2sr", weights_dir=tmp_path)
    published.load()
    asked = task(Bicubic4x(), (24, 30))
    found = [answer(model, asked).arrays["mean"] for model in (published, random)]
    np.testing.assert_array_equal(*found)
    assert Model("sen2sr:constraint=no").label == "sen2sr-unconstrained"


@pytest.mark.usefixtures("any_hash")
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
