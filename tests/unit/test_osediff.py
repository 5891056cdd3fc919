"""OSEDiff: its size, its files with their low-rank updates, its one step against diffusers', and its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from baselines.osediff import adapter, network, sampler
from baselines.osediff.sampler import Settings
from baselines.osediff.spec import BASE_FILES, MERGES, TEXT, TUNED, UNET, VAE, VOCABULARY
from baselines.seesr import text
from baselines.seesr.network import FULL, SMALL, build_scheduler, build_vae
from baselines.seesr.sampler import condition_image
from baselines.seesr.spec import TAGGER_FILES
from bench import weights
from bench.core.errors import RfbenchError, Unavailable
from bench.models import randomise
from bench.models.call import Model
from bench.protocols.paired import Paired
from tests.sd3_folder import _clip_tokenizer
from tests.systems import answer, check_sizes, task

FAST = "osediff:weights=random,size=tiny,process_px=64,tags=manual,text=river"
LR = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(FAST)
    found.load()
    return found


# --- files --------------------------------------------------------------------------------------------------------


def updates_of(net: Any, scale: float) -> dict[str, torch.Tensor]:
    """Updates of rank 4 by the names of upstream's files, normal numbers times ``scale``."""
    found, rng = {}, torch.Generator().manual_seed(1)
    for name in network.tuned_modules(net):
        kernel = net.get_submodule(name).weight
        sizes = {"A": (4, *kernel.shape[1:]), "B": (len(kernel), 4, *(1,) * (kernel.ndim - 2))}
        for factor, shape in sizes.items():
            found[f"{name}.lora_{factor}.default_x.weight"] = torch.randn(shape, generator=rng) * scale
    return found


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks with the weights of ``weights=random``, in a base model's folder and with updates of nothing."""
    monkeypatch.setattr(adapter, "FULL", SMALL)
    words = _clip_tokenizer(folder / "base/tokenizer", pad="!")
    monkeypatch.setattr(text, "build_text_encoder", lambda width, _, make=text.build_text_encoder: make(width, words))
    nets = {UNET: network.build_unet(SMALL), VAE: build_vae(SMALL), TEXT: text.build_text_encoder(SMALL.text_width, 0)}
    for file, net in nets.items():
        randomise(net, f"osediff/{file}")
        path = folder / "base" / BASE_FILES[file]
        path.parent.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path)
    first = nets[UNET].conv_in
    whole = {f"conv_in.base_layer.{k}": v for k, v in first.state_dict().items()}
    parts = {"state_dict_unet": updates_of(nets[UNET], 0) | whole, "state_dict_vae": updates_of(nets[VAE], 0)}
    torch.save({"rank_unet": 4, "rank_vae": 4, "unet_lora_others_modules": ["a"], **parts}, folder / TUNED)
    weights.record(folder / TUNED, source="")


def test_the_published_size_has_upstream_s_parameters() -> None:
    with torch.device("meta"):
        nets = {"unet": network.build_unet(FULL), "vae": build_vae()}
    assert {k: round(sum(p.numel() for p in n.parameters()) / 1e6, 2) for k, n in nets.items()} == {
        "unet": 865.91, "vae": 83.65}  # fmt: skip
    assert [len(network.tuned_modules(n)) for n in nets.values()] == [258, 32]


def test_updates_are_added_as_products() -> None:
    net = network.build_unet(SMALL)
    base, updates = net.state_dict(), updates_of(net, 0.1)
    updates["conv_in.base_layer.bias"] = torch.full((32,), 7.0)
    found = network.tuned(net, base, updates, "f.pkl")
    assert found.keys() == base.keys() and (found["conv_in.bias"] == 7).all()
    x = torch.rand(1, 32, 5, 6)
    for name, conv in (("down_blocks.0.resnets.0.conv1", True), ("mid_block.attentions.0.proj_in", False)):
        a, b = (updates[f"{name}.lora_{k}.default_x.weight"] for k in "AB")
        weight, new = base[f"{name}.weight"], found[f"{name}.weight"]
        if conv:  # as peft: a kernel of the same reach into 4 channels, and one of 1x1 out of them; counted 8 / 4 times

            def by(w: torch.Tensor, reach: int, at: torch.Tensor = x) -> torch.Tensor:
                return torch.nn.functional.conv2d(at, w, padding=reach)

            torch.testing.assert_close(by(new, 1), by(weight, 1) + 2 * by(b, 0, by(a, 1)), atol=1e-4, rtol=1e-4)
        else:
            torch.testing.assert_close(new, weight + 2 * b @ a, atol=1e-5, rtol=1e-4)
    still = [k for k in base if torch.equal(found[k], base[k]) and k.endswith("weight") and base[k].ndim > 1]
    assert still and all("time_emb" in k for k in still)
    untouched = network.tuned(
        build_vae(SMALL), v := build_vae(SMALL).state_dict(), updates_of(build_vae(SMALL), 1), "f"
    )
    assert all(torch.equal(untouched[k], v[k]) for k in v if k.startswith(("decoder.", "post_quant_conv")))


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda u: {k: v for k, v in u.items() if "mid_block" not in k}, r"f\.pkl: of \d+ expected updates \d+ missing"),
     (lambda u: u | {"x.lora_A.default_x.weight": torch.zeros(1)}, r"1 unexpected \(x, \.\.\.\)"),
     (lambda u: u | {"stray": torch.zeros(1)}, r"1 unexpected \(stray"),
     (lambda u: {k: torch.zeros(4, 5) if "proj_in.lora_A" in k else v for k, v in u.items()}, "found factors of 4x5")],
)  # fmt: skip
def test_updates_of_another_model_are_one_line(change: Any, message: str) -> None:
    net = network.build_unet(SMALL)
    with pytest.raises(RfbenchError, match=message) as caught:
        network.tuned(net, net.state_dict(), change(updates_of(net, 0)), "f.pkl")
    assert "\n" not in str(caught.value)


def test_upstream_s_files_load_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, monkeypatch)
    options = f"tags=manual,text=river,process_px=64,base={tmp_path / 'base'}"
    found = Model(f"osediff:{options}", weights_dir=tmp_path)
    found.check_ready()
    found.load()
    loaded: Any = found.adapter
    for name, build in ((UNET, lambda: network.build_unet(SMALL)), (VAE, lambda: build_vae(SMALL))):
        net = build()
        randomise(net, f"osediff/{name}")
        state = (loaded.unet if name == UNET else loaded.vae).state_dict()
        assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert found.label == "osediff-manual-tags" and set(found.spec.weights) == {TUNED}
    assert "base_sha256" in found.identity()["adapter"] and str(tmp_path) not in str(found.identity())
    assert answer(found, task(Paired(), (6, 7))).arrays["samples"].shape == (1, 30, 35, 3)


def test_missing_weights_are_one_line_with_the_command(tmp_path: Path) -> None:
    found = Model("osediff", weights_dir=tmp_path)
    with pytest.raises(Unavailable, match=r"osediff.pkl \(about 18 MB\).*rfbench weights fetch"):
        found.check_ready()
    assert set(found.spec.weights) == {TUNED, UNET, VAE, TEXT, VOCABULARY, MERGES, *TAGGER_FILES}
    assert not set(TAGGER_FILES) & set(Model("osediff:tags=manual,text=a").spec.weights)


# --- the step -----------------------------------------------------------------------------------------------------


def test_the_step_is_diffusers_ddpm_of_one() -> None:
    scheduler = build_scheduler(1, "trailing")  # whose one time is 999, where upstream sets it by hand
    latent, predicted = torch.randn(2, 1, 4, 8, 8).unbind()
    expected = scheduler.step(predicted, 999, latent).prev_sample

    class _Same:
        config = type("Config", (), {"scaling_factor": 1.0})
        seen = torch.zeros(0)

        def quant_conv(self, x: torch.Tensor) -> torch.Tensor:
            return x

        post_quant_conv = quant_conv

        def encoder(self, _: torch.Tensor) -> torch.Tensor:
            return torch.cat([latent, torch.full_like(latent, -100)], 1)

        def decoder(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return torch.zeros(1, 3, 64, 64)

    vae = _Same()

    def unet(x: torch.Tensor, t: int, **_: object) -> tuple[torch.Tensor]:
        assert t == 999
        return (predicted,)

    image = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    sampler.answer(image, torch.zeros(1, 77, 8), torch.zeros(4, 8, 8), unet, vae, Settings(align="nofix"))
    torch.testing.assert_close(vae.seen, expected, atol=1e-4, rtol=1e-4)


def test_the_last_resize_is_lanczos() -> None:
    image = condition_image(LR, 5, 64, Image.Resampling.LANCZOS)
    by_hand = Image.fromarray(LR).resize((14, 12)).resize((70, 60)).resize((64, 56), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(image), np.asarray(by_hand))


# --- the whole ----------------------------------------------------------------------------------------------------


def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model, [(6, 6), (13, 17), (16, 16), (37, 53)])


def test_seeds_draws_and_prompts(model: Model) -> None:
    asked = task(Paired(), (12, 16))
    one, again, other = (answer(model, asked, seed=s, draws=2).arrays["samples"] for s in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other) and not np.array_equal(one[0], one[1])
    assert np.array_equal(answer(model, asked, draws=1).arrays["samples"][0], one[0])
    words = Model(FAST.replace("river", "desert"))
    words.load()
    assert not np.array_equal(answer(words, asked).arrays["samples"][0], one[0])


def test_tags_are_found_in_the_enlarged_image() -> None:
    found = Model(FAST.replace(",tags=manual,text=river", ""))
    found.load()
    loaded: Any = found.adapter
    seen = []
    tags = loaded.provider.inner.tags
    loaded.provider.inner.tags = lambda image_id, lr: (seen.append(lr.shape), tags(image_id, lr))[1]
    answer(found, task(Paired(), (6, 7)))
    assert seen == [(56, 64, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [("align=none", "adain or wavelet or nofix"), ("tags=files", "write osediff:tags=files,prompts="),
     ("overlap_cells=60", "more than half of tile_cells"), ("size=tiny", "has no published weights"),
     ("base=/nowhere", "expected a diffusers folder of stable-diffusion-2-1-base")],
)  # fmt: skip
def test_bad_options_are_one_line(options: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message) as caught:
        Model(f"osediff:{options}")
    assert "\n" not in str(caught.value)
