"""SeeSR: its size, its files, its steps held against closed forms, and its answers with random weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from baselines.seesr import adapter, colour, network, prompts, sampler, tagger, text, tiled_vae
from baselines.seesr.network import IMAGE_TOKENS, SMALL, build_controlnet, build_scheduler, build_unet, build_vae
from baselines.seesr.prompted import Renamed
from baselines.seesr.prompts import Kept, Manual, OfWholes, Precomputed, PromptProvider, Tags, read_tags, write_tags
from baselines.seesr.sampler import TURBO, Networks, Prompt, Settings, ddpm_step, tile_starts, tile_weights, work_size
from baselines.seesr.spec import (
    CONTROLNET,
    DAPE,
    MERGES,
    RAM,
    TEXT,
    THRESHOLDS,
    TURBO_FILES,
    TURBO_UNET,
    UNET,
    VAE,
    VOCABULARY,
    WORDS,
)
from bench import weights
from bench.core.errors import ItemError, RfbenchError, Unavailable
from bench.models import check_state, load_state, randomise
from bench.models.call import Model
from bench.protocols.paired import Paired
from tests.sd3_folder import _clip_tokenizer
from tests.systems import answer, check_sizes, task

FAST = "seesr:weights=random,size=tiny,steps=1,process_px=64,guidance=1,tags=manual,text=river"


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(FAST)
    found.load()
    return found


def tags_of(seed: int, words: str = "mountain, river") -> Tags:
    return Tags(words, np.random.default_rng(seed).normal(size=(145, 512)).astype(np.float32))


LR = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)


# --- networks and files -------------------------------------------------------------------------------------------


def test_the_published_size_has_upstream_s_parameters() -> None:
    with torch.device("meta"):
        nets = {"unet": build_unet(), "controlnet": build_controlnet(), "vae": build_vae(),
                "text": text.build_text_encoder()}  # fmt: skip
    millions = {k: round(sum(p.numel() for p in n.parameters()) / 1e6, 2) for k, n in nets.items()}
    # Upstream's classes; the autoencoder and the text encoder of Stable Diffusion 2
    assert millions == {"unet": 1126.76, "controlnet": 489.03, "vae": 83.65, "text": 340.39}
    image = sum(p.numel() for n, p in nets["unet"].named_parameters() if ".image." in n)
    assert round(image / 1e6, 2) == 260.85


def test_names_are_upstream_s() -> None:
    names = set(network.published_names(build_unet(SMALL)))
    stages = (
        "down_blocks.0",
        "down_blocks.1",
        "down_blocks.2",
        "mid_block",
        "up_blocks.1",
        "up_blocks.2",
        "up_blocks.3",
    )
    for stage in stages:
        for kind in ("attentions", "image_attentions"):
            assert f"{stage}.{kind}.0.transformer_blocks.0.attn2.to_k.weight" in names
    assert not any(".text." in n or ".image." in n for n in names)
    assert not any(n.startswith(("down_blocks.3.att", "up_blocks.0.att")) for n in names)


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks with the weights of ``weights=random``, in files as upstream publishes them."""
    folder.mkdir()
    monkeypatch.setattr(network, "FULL", SMALL)
    monkeypatch.setattr(tagger, "FULL", tagger.SMALL)
    words = _clip_tokenizer(folder / "tokenizer", pad="!")
    monkeypatch.setattr(
        adapter.text, "build_text_encoder", lambda width, _=0, make=text.build_text_encoder: make(width, words)
    )
    (folder / "tokenizer/vocab.json").rename(folder / VOCABULARY)
    (folder / "tokenizer/merges.txt").rename(folder / MERGES)
    for file, build in ((UNET, build_unet), (CONTROLNET, build_controlnet)):
        net = build(SMALL)
        randomise(net, f"seesr/{file}")
        names = {mine: theirs for theirs, mine in network.published_names(net).items()}
        save_file({names[k]: v.contiguous() for k, v in net.state_dict().items()}, folder / file)
    vae = build_vae(SMALL)
    randomise(vae, f"seesr/{VAE}")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for name, tensor in vae.state_dict().items():  # the names of 2022, which the published file has
        for new, former in old.items():
            name = name.replace(new, former)
        state[name] = tensor.contiguous()
    save_file(state, folder / VAE)
    encoder = text.build_text_encoder(SMALL.text_width, words)
    randomise(encoder, f"seesr/{TEXT}")
    bare = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in encoder.state_dict().items()}
    save_file(bare | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, folder / TEXT)
    ram, dape = tagger_files()
    torch.save({"model": ram}, folder / RAM)
    torch.save(dape, folder / DAPE)
    (folder / WORDS).write_text("\n".join(f"tag {i}" for i in range(tagger.SMALL.tags)) + "\n")
    (folder / THRESHOLDS).write_text("0.5\n" * tagger.SMALL.tags)
    for file in (UNET, CONTROLNET, VAE, TEXT, VOCABULARY, MERGES, RAM, DAPE):
        weights.record(folder / file, source="")


def tagger_files() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """RAM's and DAPE's tensors by upstream's names, of a small tagger with random weights, and what else they hold."""
    net = tagger.RecognizeAnything(tagger.SMALL)
    randomise(net, "seesr/tagger")
    ram: dict[str, torch.Tensor] = {}
    for name, tensor in net.state_dict().items():
        part, _, rest = name.partition(".")
        bits = rest.split(".")
        if part == "encoder" and bits[0] == "features":
            index = int(bits[1])
            if index == 0:
                rest = f"patch_embed.{'proj' if bits[2] == '0' else 'norm'}.{bits[3]}"
            elif index % 2:
                tail = ".".join(bits[3:]).replace("mlp.0", "mlp.fc1").replace("mlp.3", "mlp.fc2")
                rest = f"layers.{index // 2}.blocks.{bits[2]}.{tail}"
            else:
                rest = f"layers.{index // 2 - 1}.downsample.{'.'.join(bits[2:])}"
        if part == "encoder":
            ram[f"visual_encoder.{rest}"] = tensor
        elif part == "layers":
            names = {"attention.query": "crossattention.self.query", "attention.key": "crossattention.self.key",
                     "attention.value": "crossattention.self.value", "attention.dense": "crossattention.output.dense",
                     "attention.norm": "crossattention.output.LayerNorm", "up": "intermediate.dense",
                     "down": "output.dense", "norm": "output.LayerNorm"}  # fmt: skip
            inner, kind = rest.partition(".")[2].rsplit(".", 1)
            ram[f"tagging_head.encoder.layer.{bits[0]}.{names[inner]}.{kind}"] = tensor
        else:
            outer = {"queries": "label_embed", "project": "image_proj", "query_project": "wordvec_proj", "logit": "fc"}
            ram[outer[part] + (f".{rest}" if rest else "")] = tensor
    ram["text_decoder.cls.predictions.bias"] = torch.ones(3)
    ram["tag_encoder.embeddings.word_embeddings.weight"] = torch.ones(3, 3)
    ram["visual_encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(3)
    ram["tagging_head.encoder.layer.0.attention.self.query.weight"] = torch.ones(3, 3)
    dape = {}
    for name, tensor in ram.items():
        if name.endswith(("attn.qkv.weight", "crossattention.self.query.weight", "crossattention.self.key.weight")):
            base, (rows, columns) = name.removesuffix("weight"), tensor.shape
            groups, rows = (2, rows // 3 * 2) if "qkv" in name else (1, rows)
            dape[f"{base}lora_A"], dape[f"{base}lora_B"] = torch.randn(8 * groups, columns), torch.zeros(rows, 8)
    return ram, dape


def test_upstream_s_files_load_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFBENCH_CONVERTED", str(tmp_path / "converted"))
    published(tmp_path / "weights", monkeypatch)
    # The two lists of tags have hashes of their own, which stand-ins cannot have.
    spec = dataclasses.replace(adapter.SPEC, weights={
        k: v | {"sha256": ""} for k, v in adapter.SPEC.weights.items()})  # fmt: skip
    monkeypatch.setattr("bench.core.registry.load", lambda kind, name: spec)
    for file in (WORDS, THRESHOLDS):
        weights.record(tmp_path / "weights" / file, source="")
    found = Model("seesr:steps=1,process_px=64", weights_dir=tmp_path / "weights")
    found.check_ready()
    found.load()
    loaded: Any = found.adapter
    for name, build in (("unet", build_unet), ("controlnet", build_controlnet), ("vae", build_vae)):
        file = {"unet": UNET, "controlnet": CONTROLNET, "vae": VAE}[name]
        net = build(SMALL)
        randomise(net, f"seesr/{file}")
        state = getattr(loaded.networks, name).state_dict()
        assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    answered = answer(found, task(Paired(), (6, 7)))
    small = Model("seesr:weights=random,size=tiny,steps=1,process_px=64")
    small.load()
    assert found.label == "seesr" and small.label == "seesr-random-tiny"
    ours: Any = small.adapter
    assert loaded.provider.tags("x", LR).text == ours.provider.tags("x", LR).text != ""
    np.testing.assert_array_equal(loaded.provider.tags("x", LR).tokens, ours.provider.tags("x", LR).tokens)
    assert answered.arrays["samples"].shape == (1, 30, 35, 3)
    assert len(list((tmp_path / "converted").glob("seesr-tagger-*.safetensors"))) == 1


def test_the_turbo_variant_is_sd_turbo_with_image_transformers_and_two_steps() -> None:
    turbo, standard = Model("seesr:variant=turbo"), Model("seesr")
    assert (turbo.label, standard.label) == ("seesr-turbo", "seesr")
    assert set(turbo.spec.weights) ^ set(standard.spec.weights) == {TURBO_UNET, *TURBO_FILES, *TURBO_FILES.values()}
    assert {UNET, CONTROLNET, RAM} <= set(turbo.spec.weights)  # SeeSR's own on top of SD-Turbo's
    assert "non-commercial" in turbo.spec.licence.lower() and "non-commercial" not in standard.spec.licence.lower()
    assert turbo.spec.unlike_paper and not standard.spec.unlike_paper
    chosen: Any = turbo.adapter
    assert chosen.settings == TURBO
    assert build_scheduler(TURBO.steps, TURBO.spacing).timesteps.tolist() == [999, 499]
    assert build_scheduler(50).timesteps.tolist()[:2] == [981, 961]
    own: Any = Model("seesr:variant=turbo,steps=4,guidance=2").adapter
    assert (own.settings.steps, own.settings.guidance, own.settings.overlap_cells) == (4, 2, 32)
    merged = network.turbo_unet({"a.attentions.0.x": 1, "b": 2}, {"a.image_attentions.0.x": 3, "b": 4})  # type: ignore[dict-item]
    assert merged == {"a.attentions.0.x": 1, "b": 2, "a.image_attentions.0.x": 3}
    with pytest.raises(RfbenchError, match="option base: found one with variant=turbo"):
        Model("seesr:variant=turbo,base=/")


def test_the_turbo_variant_answers() -> None:
    found = []
    for variant in ("standard", "turbo"):
        each = Model(f"seesr:weights=random,size=tiny,process_px=64,steps=2,variant={variant}")
        each.load()
        found.append(answer(each, task(Paired(), (6, 7))).arrays["samples"])
        assert each.label == f"seesr-random-tiny{'-turbo' if variant == 'turbo' else ''}"
    assert found[0].shape == found[1].shape and not np.array_equal(*found)


@pytest.mark.parametrize("renamed", [network.from_published, network.vae_from_published])
def test_files_of_another_model_are_one_line(renamed: Renamed) -> None:
    net = build_unet(SMALL)
    state = {k: v for k, v in net.state_dict().items() if ".image." not in k} | {"x": torch.ones(2)}
    with pytest.raises(RfbenchError, match=r"missing \(down_blocks\.0\.attentions.* 1 unexpected \(x\)") as caught:
        load_state(net, renamed(net, state), UNET)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_one_line_with_the_command(tmp_path: Path) -> None:
    found = Model("seesr", weights_dir=tmp_path)
    with pytest.raises(Unavailable, match=r"seesr_unet.safetensors \(about 4.5 GB\).*rfbench weights fetch"):
        found.check_ready()
    manual = Model("seesr:tags=manual,text=[river, snow]", weights_dir=tmp_path)
    assert RAM in found.spec.weights and not {RAM, DAPE, WORDS, THRESHOLDS} & manual.spec.weights.keys()
    assert manual.label == "seesr-manual-tags"


# --- the tagger ---------------------------------------------------------------------------------------------------


def test_the_updates_are_added_to_queries_values_and_keys_alone() -> None:
    net = tagger.RecognizeAnything(tagger.SMALL)
    ram, dape = tagger_files()
    plain = tagger.from_published(net, ram, dape)
    check_state(plain, net, "tagger")
    dape = {k: torch.randn_like(v) if k.endswith("lora_B") else v for k, v in dape.items()}
    tied = "tag_encoder.encoder.layer.0.crossattention.self.query.lora_"
    head = tied.replace("tag_encoder", "tagging_head")
    dape |= {f"{tied}{k}": dape[f"{head}{k}"] * 2 for k in "AB"}
    updated = tagger.from_published(net, ram, dape)
    changed = {k for k in plain if not torch.equal(plain[k], updated[k])}
    assert all(k.endswith(("qkv.weight", "query.weight", "key.weight")) for k in changed) and len(changed) == 4 + 4
    name, base = "encoder.features.3.0.attn.qkv.weight", "visual_encoder.layers.1.blocks.0.attn.qkv."
    q, k, v = (updated[name] - plain[name]).chunk(3)
    (a1, a2), (b1, b2) = dape[f"{base}lora_A"].chunk(2), dape[f"{base}lora_B"].chunk(2)
    torch.testing.assert_close(q, b1 @ a1 / 8, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(v, b2 @ a2 / 8, atol=1e-6, rtol=1e-5)
    assert not k.any()
    # The original shares this weight with its captioner and adds that one's update, too: here four times as large.
    added = updated["layers.0.attention.query.weight"] - plain["layers.0.attention.query.weight"]
    torch.testing.assert_close(added, 5 * dape[f"{head}B"] @ dape[f"{head}A"] / 8, atol=1e-5, rtol=1e-4)
    with pytest.raises(RfbenchError, match="DAPE: found no visual_encoder"):
        tagger.from_published(net, ram, {})
    with pytest.raises(RfbenchError, match="DAPE: found factors of 4x24 and"):
        tagger.from_published(net, ram, dape | {f"{base}lora_A": torch.zeros(4, 24)})


def test_tags_are_those_above_their_threshold() -> None:
    net = tagger.RecognizeAnything(tagger.SMALL).eval()
    randomise(net, "tags")
    names, n = [f"t{i}" for i in range(tagger.SMALL.tags)], tagger.SMALL.tags
    every = tagger.Tagger(net, names, np.zeros(n, np.float32)).tags("x", LR)
    assert every.text == ", ".join(names) and every.tokens.shape == (145, 512) and every.tokens.dtype == np.float32
    none = tagger.Tagger(net, names, np.r_[np.ones(n - 1, np.float32), np.float32(0)]).tags("x", LR)
    assert none.text == names[-1]
    np.testing.assert_allclose(every.tokens[0], every.tokens[1:].mean(0), atol=1e-5)  # the first is the others' mean


def test_lists_of_tags_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("a\nb\n")
    (tmp_path / "t").write_text("0.5\nx\n")
    with pytest.raises(RfbenchError, match="expected a tag and a number"):
        tagger.read_words(tmp_path / "w", tmp_path / "t")
    (tmp_path / "t").write_text("0.5\n")
    with pytest.raises(RfbenchError, match="found 2 tags and 1 thresholds, expected 4585 of each"):
        tagger.read_words(tmp_path / "w", tmp_path / "t")


# --- prompts ------------------------------------------------------------------------------------------------------


def test_prompts_are_put_together_as_published() -> None:
    assert prompts.prompt_text("river, snow", "") == "river, snow, ,clean, high-resolution, 8k"
    assert prompts.prompt_text("river", "sharp") == "river, sharp,clean, high-resolution, 8k"
    assert not Manual("river").tags("x", LR).tokens.any()


@pytest.mark.parametrize("image_id", ["a", "../../etc/passwd", "ümläut/ß", "x" * 300])
def test_a_file_of_tags_comes_back(image_id: str, tmp_path: Path) -> None:
    written = tags_of(1)
    path = write_tags(tmp_path, image_id, written, LR)
    assert path.parent == tmp_path
    found = Precomputed(tmp_path).tags(image_id, LR)
    assert found.text == written.text and np.array_equal(found.tokens, written.tokens)
    before = path.read_bytes()
    write_tags(tmp_path, image_id, written, LR)
    assert path.read_bytes() == before
    # Also a smaller one: the LR of another protocol is no tile.
    for other in (LR[::-1], np.zeros((9, 9, 3), np.uint8), LR[:3, :4]):
        with pytest.raises(RfbenchError, match="tags of another LR image"):
            read_tags(path, image_id, other)
    with pytest.raises(RfbenchError, match="expected those of 'b'"):
        read_tags(path, "b", LR)


def test_a_prompt_file_that_misses_an_image_is_an_error_of_that_image(tmp_path: Path) -> None:
    write_tags(tmp_path, "here", tags_of(1))
    model = Model(f"seesr:weights=random,size=tiny,steps=1,process_px=64,tags=files,prompts={tmp_path}")
    model.load()
    assert "prompts_sha256" in model.identity()["adapter"] and str(tmp_path) not in json.dumps(model.identity())
    found = model.predict([task(Paired(), (6, 7), n) for n in ("here", "gone")], run_seed=0, draws=1)
    assert not isinstance(found[0], ItemError) and isinstance(found[1], ItemError)
    assert "found no file gone.safetensors" in str(found[1]) and "tags=tagger" in str(found[1])
    with pytest.raises(RfbenchError, match="prompts: found no folder"):
        Model(f"seesr:tags=files,prompts={tmp_path / 'none'}")


@pytest.mark.parametrize("damage", ["empty", "cut", "shape", "dtype", "metadata", "text", "nan"])
def test_broken_files_of_tags_are_one_line(damage: str, tmp_path: Path) -> None:
    path, tokens = tmp_path / "x.safetensors", np.zeros((145, 512), np.float32)
    good = {"prompt": json.dumps({"id": "x", "tags": "a"})}
    if damage == "cut":
        write_tags(tmp_path, "x", tags_of(1))
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        wrong = {"shape": tokens[:3], "dtype": tokens.astype(np.float16), "nan": tokens + np.nan}.get(damage, tokens)
        meta = {"metadata": {"prompt": "[1]"}, "text": {"prompt": "{"}}.get(damage, good)
        save_arrays({"tokens": np.ascontiguousarray(wrong)}, path, meta)
    with pytest.raises(RfbenchError, match=r"x\.safetensors.*expected tokens, float32 145x512") as caught:
        Precomputed(tmp_path).tags("x", LR)
    assert "\n" not in str(caught.value)


class Counting(PromptProvider):
    """Other tags each time that it is asked."""

    asked = 0

    def tags(self, image_id: str, lr: np.ndarray) -> Tags:
        self.asked += 1
        return tags_of(self.asked)


def test_kept_tags_are_found_once(tmp_path: Path) -> None:
    inner = Counting()
    kept = Kept(inner, tmp_path, "ram")
    first, again = kept.tags("x", LR), kept.tags("x", LR)
    assert inner.asked == 1 and np.array_equal(first.tokens, again.tokens) and first.text == again.text
    kept.tags("x", LR[::-1])  # other pixels: the old tags are not theirs
    kept.tags("x", LR[:3, :4])  # nor those of a smaller LR
    kept.tags("y", LR)
    assert inner.asked == 4


def test_kept_tags_of_another_tagger_are_not_taken(tmp_path: Path) -> None:
    inner = Counting()
    random = Kept(inner, tmp_path, "random").tags("x", LR)
    found = Kept(inner, tmp_path, "ram").tags("x", LR)
    assert inner.asked == 2 and not np.array_equal(found.tokens, random.tokens)
    np.testing.assert_array_equal(Precomputed(tmp_path).tags("x", LR).tokens, found.tokens)
    path = write_tags(tmp_path, "mine", tags_of(7))
    before = path.read_bytes()
    with pytest.raises(RfbenchError, match=r"mine\.safetensors: found tags that no tagger wrote.*tags=files"):
        Kept(inner, tmp_path, "ram").tags("mine", LR)
    assert path.read_bytes() == before


def test_a_tile_has_the_tags_of_its_whole() -> None:
    inner = Counting()
    tags = OfWholes(inner)
    whole = tags.tags("x", LR, (0, 0))
    for top, left in ((0, 0), (1, 2)):
        assert tags.tags("x", LR[top : top + 3, left : left + 2], (top, left)) is whole
    assert inner.asked == 1
    for image_id, part, offset in (("y", LR[:3, :2], (0, 0)), ("x", LR, (0, 0)), ("x", LR[1:3], (0, 0))):
        assert tags.tags(image_id, part, offset) is not whole
    assert inner.asked == 4


# --- steps of inference -------------------------------------------------------------------------------------------


def test_sizes_of_the_work() -> None:
    expected = {((30, 40), 5): ((102, 136), (504, 680)), ((30, 40), 4): ((128, 170), (512, 680)),
                ((128, 128), 4): ((128, 128), (512, 512)), ((6, 6), 5): ((102, 102), (504, 504)),
                ((37, 53), 5): ((102, 146), (504, 728)), ((200, 260), 5): ((200, 260), (1000, 1296))}  # fmt: skip
    for (lr, upscale), sizes in expected.items():
        assert work_size(lr, upscale, 512) == sizes
    image = sampler.condition_image(LR, 5, 64)
    by_hand = Image.fromarray(LR).resize((14, 12)).resize((70, 60)).resize((64, 56))
    assert np.array_equal(np.asarray(image), np.asarray(by_hand))


def test_a_step_is_diffusers_ddpm() -> None:
    scheduler = build_scheduler(50)
    assert [int(t) for t in scheduler.timesteps[[0, 1, -1]]] == [981, 961, 1]
    x, predicted = torch.randn(2, 1, 4, 5, 6).unbind()
    for t in (981, 501, 1):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(t))
        expected = scheduler.step(predicted, t, x, generator=torch.Generator().manual_seed(t)).prev_sample
        torch.testing.assert_close(ddpm_step(scheduler, predicted, t, x, noise), expected, atol=1e-6, rtol=1e-6)


def test_adain_gives_the_source_s_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    image, source = (torch.from_numpy(rng.normal(0.4, 0.2, (2, 3, *s)).astype(np.float32)) for s in ((24, 20), (9, 7)))
    fixed = colour.adain(image, source)
    torch.testing.assert_close(fixed.mean((2, 3)), source.mean((2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(fixed.std((2, 3)), source.std((2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(colour.adain(image, image), image, atol=1e-6, rtol=0)
    assert torch.isfinite(colour.adain(torch.full((1, 3, 8, 8), 0.3), source[:1])).all()


def test_the_wavelet_fix_takes_the_source_s_low_frequencies() -> None:
    image, source = torch.rand(2, 1, 3, 40, 52).unbind()
    fixed = colour.wavelet(image, source)
    torch.testing.assert_close(fixed - image, colour.low_frequencies(source) - colour.low_frequencies(image))
    torch.testing.assert_close(colour.wavelet(image, image), image)
    # By hand: five blurs with holes of 1, 2, 4, 8, 16 px are separable, each a mean of 1/4, 1/2, 1/4
    ramp = torch.arange(400.0)[None, None, None].expand(1, 3, 400, 400) / 400
    middle = (..., slice(150, 250), slice(150, 250))
    torch.testing.assert_close(colour.low_frequencies(ramp)[middle], ramp[middle])
    wave = torch.cos(torch.arange(400.0) * torch.pi)[None, None, None].expand(1, 3, 400, 400)
    assert colour.low_frequencies(wave)[middle].abs().max() < 1e-6  # the finest wave vanishes
    torch.testing.assert_close(colour.wavelet(image + 0.3, source), fixed)  # a constant is colour


class _Local(torch.nn.Module):
    """Noise that depends on its own pixel alone, in place of the UNet."""

    config = type("Config", (), {"scaling_factor": 1.0})

    def forward(self, x: torch.Tensor, t: int, **_: Any) -> tuple[torch.Tensor]:
        return (x * 0.5 + t / 1000,)


def test_latent_tiles_cover_and_agree() -> None:
    for length, side, overlap in ((97, 96, 4), (96, 96, 4), (200, 96, 4), (85, 64, 4), (130, 30, 0)):
        starts = tile_starts(length, side, overlap)
        seen = np.zeros(length, bool)
        for start in starts:
            seen[start : start + side] = True
        assert starts[0] == 0 and starts[-1] == length - side and seen.all() and starts == sorted(set(starts))
    at = tile_weights(96)
    assert at.argmax() == 48 * 96 + 47 or at.argmax() == 48 * 96 + 48
    np.testing.assert_allclose(at[48, 0] / at[48, 95], 1, rtol=1e-5)
    np.testing.assert_allclose(at[0, 5] / at[48, 5], np.exp(-0.25 / 0.02), rtol=1e-4)

    def controlnet(x: torch.Tensor, t: int, **_: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [], x

    networks = Networks(_Local(), controlnet, None, torch.float32, torch.device("cpu"))
    prompt = Prompt(torch.zeros(1, 77, 8), torch.zeros(1, 77, 8), torch.zeros(1, 145, 512))
    latent, rgb = torch.randn(1, 4, 21, 34), torch.rand(1, 3, 168, 272)
    whole, tiled = (
        sampler._noise(latent, 500, rgb, prompt, networks, Settings(tile_cells=n, overlap_cells=2)) for n in (96, 8)
    )
    torch.testing.assert_close(tiled, whole)


@pytest.mark.parametrize(
    ("length", "tile", "margin"), [(1500, 1024, 32), (2049, 256, 32), (300, 224, 11), (47, 16, 11)]
)
def test_tiles_of_the_autoencoder_cover_once(length: int, tile: int, margin: int) -> None:
    tiles = tiled_vae.split(length // 8 * 8, tile, margin, shrinks=margin == 32)
    ends = [0, *(t.out_stop for t in tiles)]
    assert [t.out_start for t in tiles] == ends[:-1] and ends[-1] == (length // 8 if margin == 32 else length // 8 * 64)
    assert all(t.stop - t.start <= tile + 2 * margin for t in tiles) and len(tiles) > 1


def test_the_autoencoder_in_tiles_is_the_autoencoder() -> None:
    vae = build_vae(SMALL).eval()
    randomise(vae, "vae")
    image, latent = torch.rand(2, 3, 96, 136) * 2 - 1, torch.randn(2, 4, 12, 17)
    with torch.no_grad():
        # One tile: its passes from norm to norm are the network's own forward.
        for x, net, way in ((image, vae.encoder, tiled_vae._encoder), (latent, vae.decoder, tiled_vae._decoder)):
            shrinks = net is vae.encoder
            found = tiled_vae._in_tiles(x, 10_000, 32, lambda part, n=net, w=way: w(n, part), shrinks=shrinks)
            torch.testing.assert_close(found, net(x), atol=1e-4, rtol=1e-4)
        # Many tiles: without attention, which sees its tile alone, they are the whole but for pooled statistics.
        for part in (vae.encoder, vae.decoder):
            part.mid_block.attentions[0].to_out[0].weight.zero_()
        wide, tall = torch.rand(1, 3, 200, 264) * 2 - 1, torch.randn(1, 4, 40, 56)
        whole, tiled = (tiled_vae.encode(vae, wide, n) for n in (1024, 64))
        assert (whole - tiled).abs().mean() < 0.1 * whole.std()
        whole, tiled = (tiled_vae.decode(vae, tall, n) for n in (224, 16))
        off = (whole - tiled).abs()
        assert off.mean() < 0.1 * whole.std()
        seams = [t.out_start for t in tiled_vae.split(40, 16, 11, shrinks=False)[1:]]
        assert all(off[:, :, s - 2 : s + 2].mean() < 1.5 * off.mean() for s in seams)
        moments = tiled_vae.encode(vae, image, 1024)
        torch.testing.assert_close(moments, vae.encode(image).latent_dist.parameters)
        torch.testing.assert_close(tiled_vae.decode(vae, latent, 224), vae.decode(latent).sample)


def test_image_tokens_text_and_condition_all_count(model: Model) -> None:
    loaded: Any = model.adapter
    nets, rng = loaded.networks, torch.Generator().manual_seed(0)
    x, text_, tokens = (torch.randn(s, generator=rng) for s in ((1, 4, 8, 8), (1, 77, 32), (1, 145, 512)))

    def noise(text: torch.Tensor, tokens: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        prompt = Prompt(text, text, tokens)
        return sampler._guided(x, 500, rgb, prompt, nets, Settings(guidance=1))

    rgb = torch.rand(1, 3, 64, 64, generator=rng)
    with torch.no_grad():
        base = noise(text_, tokens, rgb)
        assert all((base - other).abs().max() > 1e-4 for other in (
            noise(text_ + 1, tokens, rgb), noise(text_, tokens + 1, rgb), noise(text_, tokens, 1 - rgb)))  # fmt: skip
        assert IMAGE_TOKENS not in nets.unet.config


# --- the whole ----------------------------------------------------------------------------------------------------


def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model)


def test_seeds_and_draws(model: Model) -> None:
    asked = task(Paired(), (12, 16))
    one, again, other = (answer(model, asked, seed=s, draws=2).arrays["samples"] for s in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other) and not np.array_equal(one[0], one[1])
    alone = answer(model, asked, draws=1).arrays["samples"]
    assert np.array_equal(alone[0], one[0])  # no draw depends on how many there are
    mean = one.mean((0, 1, 2))
    np.testing.assert_allclose(mean, asked.lr_display.mean((0, 1)), atol=0.05)  # AdaIN, then cut off at [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [("steps=0", "option steps"), ("guidance=x", "option guidance"), ("align=none", "adain or wavelet or nofix"),
     ("tags=files", "needs the option prompts"), ("tags=manual", "needs the option text"),
     ("text=a", "expected tags=manual"),
     ("overlap_cells=60", "more than half of tile_cells"), ("size=tiny", "has no published weights"),
     ("base=nowhere", "found no vae/diffusion_pytorch_model.safetensors"), ("tag=manual", "did you mean tags"),
     ("tags=manual,text=a,prompts=x", "expected tags=files"), ("weights=random,base=x", "reads no files")],
)  # fmt: skip
def test_bad_options_are_one_line(options: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message) as caught:
        Model(f"seesr:{options}")
    assert "\n" not in str(caught.value)


def test_an_image_far_from_a_square_is_refused(model: Model) -> None:
    (found,) = model.predict([task(Paired(), (1, 700))], run_seed=0, draws=1)
    assert isinstance(found, ItemError) and "expected at most 8192 px a side" in str(found)
