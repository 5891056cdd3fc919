"""The stages of training: what trains and what stays, the bank of u, the loop, its states."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rareflow.config import AugmentConfig, Config, with_changes
from rareflow.errors import RareflowError
from rareflow.losses import velocity_loss
from rareflow.model import RareFlow
from rareflow.networks import Codec, Masks
from rareflow.noise import normal
from rareflow.train import run as run_module
from rareflow.train import stages as stages_module
from rareflow.train.cache import Cache, Item
from rareflow.train.chips import batch_at, stream
from rareflow.train.loop import averaged, read_log, read_state, run_stage, write_state
from rareflow.train.stages import (
    ControlModule,
    ControlStage,
    PriorModule,
    PriorStage,
    VaeStage,
    content,
    crop_window,
    fit_latents,
)
from rareflow.uncertainty import measure
from tests.small_rareflow import (
    ALL,
    ONE,
    chip,
    make_cache,
    one_line,
    small_config,
    small_data,
    small_model,
    state_of,
    train_small,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# --- crops and masks -------------------------------------------------------------------------------------------------


def item_of(bucket: tuple[int, int], valid: tuple[int, int]) -> Item:
    return Item(chip(0), bucket, 0, valid)


def test_crops_lie_on_the_grid_and_reach_everywhere() -> None:
    item = item_of((132, 108), (131, 106))
    seen = set()
    for step in range(300):
        top, left, rows, columns = crop_window(item, 60, 12, stream(0, "crop", step))
        assert rows == columns == 60 and top % 12 == left % 12 == 0
        assert 0 <= top <= 132 - 60 and 0 <= left <= 108 - 60
        seen.add((top, left))
    assert len(seen) == 7 * 5
    assert crop_window(item, 61, 12, stream(0))[2:] == (72, 72)
    assert crop_window(item, 1000, 12, stream(0)) == (0, 0, 132, 108)


@pytest.mark.parametrize("window", [(0, 0, 132, 108), (72, 48, 60, 60), (0, 0, 60, 60)])
def test_a_mask_has_the_cells_whose_middle_is_image(window: tuple[int, int, int, int]) -> None:
    items = [item_of((132, 108), valid) for valid in ((131, 106), (121, 97), (132, 108))]
    found = content(items, window, 4)
    top, left, rows, columns = window
    assert found.shape == (3, 1, rows // 4, columns // 4) and found.dtype == torch.bool
    for item, mask in zip(items, found[:, 0].numpy(), strict=True):
        inside = np.zeros(item.bucket, bool)
        inside[: item.valid[0], : item.valid[1]] = True
        crop = inside[top : top + rows, left : left + columns]
        # a cell's middle is image where its pixel to the upper left of the middle and the next one are
        assert np.array_equal(mask, crop[2::4, 2::4] | crop[1::4, 1::4] & crop[2::4, 2::4])
    assert found[2].all()


class Fixed:
    """A field whose velocity is given, so that a loss is seen apart from the networks."""

    def __init__(self, v: Tensor) -> None:
        self.v = v
        self.transformer, self.control, self.gates = nn.Identity(), nn.Identity(), None

    def velocity(self, *_: object) -> Tensor:
        return self.v


def padded_batch(cache: Cache, model: RareFlow, config: Config | None = None) -> dict[str, Tensor]:
    """A batch of the control stage with padding in it."""
    stage = control_stage(model, cache, config)
    for step in range(30):
        batch, _ = stage.batch(step)
        if "mask" in batch:
            return batch
    raise AssertionError("no batch has a mask")


def test_what_lies_in_the_padding_does_not_reach_the_losses(cache: Cache, model: RareFlow) -> None:
    batch = padded_batch(cache, model)
    mask, outside = batch["mask"], ~batch["mask"].expand_as(batch["z0"])
    assert bool(outside.any()) and batch["target"].shape[-2:] == tuple(4 * n for n in mask.shape[-2:])
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(batch["z0"].shape, generator=generator).requires_grad_(True)

    def junk(values: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, torch.full_like(values, 1e3), values.detach())

    control = ControlModule(Fixed(v), Masks(), model.codec, small_config().loss, None)  # type: ignore[arg-type]
    loss, terms = control(**batch)
    (gradient,) = torch.autograd.grad(loss, v)
    assert not gradient[outside].any() and bool((gradient[~outside] != 0).all())
    large = outside[:, :1].float().repeat_interleave(4, 2).repeat_interleave(4, 3).bool().expand_as(batch["target"])
    control.field = Fixed(junk(v, outside))  # type: ignore[assignment]
    other = batch | {"eps": junk(batch["eps"], outside), "target": junk(batch["target"], large)}
    changed, changed_terms = control(**other)
    assert set(terms) == {"base", "fft", "color"}
    for name in terms:
        torch.testing.assert_close(changed_terms[name], terms[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(changed, loss.detach(), rtol=1e-5, atol=1e-7)

    batch = {k: batch[k] for k in ("z0", "x", "eps", "sigma", "mask")} | {"ids": torch.zeros(2, 6), "on": torch.ones(2)}
    prior = PriorModule(Fixed(v), lambda ids: (ids, ids))  # type: ignore[arg-type]
    loss, _ = prior(**batch)
    expected = velocity_loss(v, batch["z0"], batch["eps"], batch["sigma"], "inv_sigma", mask).mean()
    torch.testing.assert_close(loss, expected)
    prior.field = Fixed(junk(v, outside))  # type: ignore[assignment]
    changed, _ = prior(**(batch | {name: junk(batch[name], outside) for name in ("z0", "eps", "x")}))
    torch.testing.assert_close(changed, loss.detach())


# --- the VAE's stage -------------------------------------------------------------------------------------------------


def test_latents_are_brought_to_mean_0_and_deviation_1(cache: Cache) -> None:
    vae = small_model(seed=3).codec.vae
    fit_latents(vae, cache, 4)
    with torch.no_grad():
        values = np.concatenate([
            Codec(vae).encode(cache.images([item], "hr", 0, 0, item.bucket)).double().numpy().ravel()
            for item in cache.items[:4]
        ])  # fmt: skip
    assert values.mean() == pytest.approx(0, abs=1e-4) and values.std() == pytest.approx(1, rel=1e-4)


def test_the_vae_sees_both_sides_of_chips(cache: Cache) -> None:
    config = small_config({"train": {"vae": {"batch": 8, "crop_px": 24}}})
    stage = VaeStage(small_model().codec.vae, config, cache, cache)
    images = stage.batch(0)[0]["images"]
    assert images.shape == (8, 3, 24, 24)
    items = batch_at(cache.buckets, 8, 0, 0, "vae")

    def is_crop_of(image: Tensor, item: Item, kind: str) -> bool:
        whole = cache.images([item], kind, 0, 0, item.bucket)[0]
        windows = whole.unfold(1, 24, 4).unfold(2, 24, 4)
        return bool((windows == image[:, None, None]).all(dim=0).all(dim=-1).all(dim=-1).any())

    for n, item in enumerate(items):
        assert is_crop_of(images[n], item, "up" if n % 4 == 3 else "hr")
        assert not is_crop_of(images[n], item, "hr" if n % 4 == 3 else "up")


# --- the latent stages' batches --------------------------------------------------------------------------------------


def inputs_of(model: RareFlow) -> Callable[[list[str]], dict[str, Tensor]]:
    return lambda captions: dict(zip(("tokens", "pooled"), model.captions.get(captions), strict=True))


def control_stage(model: RareFlow, cache: Cache, config: Config | None = None, check: Any = None) -> ControlStage:
    config = config or ALL
    return ControlStage(
        model.field, model.masks, config, model.codec, cache, inputs_of(model), check or (lambda step: {}), None
    )


def prior_stage(model: RareFlow, cache: Cache, config: Config) -> PriorStage:
    return PriorStage(model.field, model.captions.table, config, model.codec, cache, lambda step: {})  # type: ignore[attr-defined]


def test_a_step_is_a_function_of_its_number(cache: Cache, model: RareFlow) -> None:
    config = small_config({"train": {"control": {"crop_px": 60}}})
    stages = [
        stage for _ in range(2) for stage in (prior_stage(model, cache, config), control_stage(model, cache, config))
    ]
    for a, b in zip(stages[:2], stages[2:], strict=True):
        wanted = [a.batch(step) for step in range(8)]
        torch.manual_seed(3)
        for step in reversed(range(8)):
            batch, ids = b.batch(step)
            assert ids == wanted[step][1] and batch.keys() == wanted[step][0].keys()
            assert all(torch.equal(batch[k], wanted[step][0][k]) for k in batch)
        assert len({float(batch["eps"].sum()) for batch, _ in wanted}) == 8


def test_a_batch_has_latents_of_one_place_and_the_target_of_the_same(cache: Cache, model: RareFlow) -> None:
    stage = control_stage(model, cache, small_config({"train": {"control": {"crop_px": 60}}}))
    by_id = {item.chip.id: item for item in cache.items}
    for step in range(6):
        batch, ids = stage.batch(step)
        assert batch["z0"].shape == (2, 4, 15, 15) and batch["target"].shape == (2, 3, 60, 60)
        for n, item in enumerate(by_id[i] for i in ids):
            cells = item.bucket[0] // 4, item.bucket[1] // 4
            whole = {k: cache.latents([item], k, 0, 0, cells)[0] for k in ("z0", "x")}
            target = cache.images([item], "hr", 0, 0, item.bucket)[0]
            places = [
                (y, x) for y in range(0, cells[0] - 14, 3) for x in range(0, cells[1] - 14, 3)
                if torch.equal(whole["z0"][:, y : y + 15, x : x + 15], batch["z0"][n])
            ]  # fmt: skip
            ((y, x),) = places
            assert torch.equal(whole["x"][:, y : y + 15, x : x + 15], batch["x"][n])
            assert torch.equal(target[:, 4 * y : 4 * y + 60, 4 * x : 4 * x + 60], batch["target"][n])
        assert bool((batch["sigma"] > 0).all()) and bool((batch["sigma"] <= 1).all())


@pytest.mark.parametrize(
    ("captions", "dropout", "share"), [(True, 0.0, 0.0), (True, 0.3, 0.3), (True, 1.0, 1.0), (False, 0.0, 1.0)]
)
def test_the_share_of_empty_captions(
    cache: Cache, model: RareFlow, captions: bool, dropout: float, share: float
) -> None:
    config = small_config({"text": {"captions": captions, "dropout": dropout}, "train": {"prior": {"crop_px": 12}}})
    stage, table = prior_stage(model, cache, config), model.captions.table  # type: ignore[attr-defined]
    own = {item.chip.id: table.ids([item.chip.caption])[0] for item in cache.items}
    empty = []
    for step in range(150):
        batch, ids = stage.batch(step)
        for row, name in zip(batch["ids"], ids, strict=True):
            assert not row.any() or torch.equal(row, own[name])
            empty.append(not row.any())
    assert np.mean(empty) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)  # 300 draws: deviation 0.026


def test_the_share_of_samples_without_control(cache: Cache, model: RareFlow) -> None:
    for share in (0.0, 0.2, 1.0):
        stage = prior_stage(model, cache, small_config({"train": {"control_dropout": share, "prior": {"crop_px": 12}}}))
        on = torch.cat([stage.batch(step)[0]["on"] for step in range(150)])
        assert set(on.unique().tolist()) <= {0.0, 1.0}
        assert 1 - float(on.mean()) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


# --- the bank of u ---------------------------------------------------------------------------------------------------


def test_the_bank_has_the_u_of_every_chip_as_sampling_measures_it(cache: Cache, model: RareFlow) -> None:
    stage = control_stage(model, cache)
    scale = stage.fill_bank()
    assert not model.masks.training and [i.chip.id for i in stage.bank] == [i.chip.id for i in cache.items]
    mean_v = stage.mean_v.double().numpy()
    assert scale.tau == pytest.approx(np.percentile(mean_v, 95)) and scale.kappa == pytest.approx(np.median(mean_v))
    for n, item in enumerate(cache.items):
        # the same measurement from the parts: cached x, the chip's caption, a seed of its name, noise of that seed
        seed = int(stream(0, "control", "bank", item.chip.id).integers(2**62))
        cells = item.bucket[0] // 4, item.bucket[1] // 4
        tokens, pooled = model.captions.get([item.chip.caption])
        v = measure(
            model.field, model.masks, model.codec.decode, z=normal([seed], (4, *cells), "noise"), sigma=1.0,
            x=cache.latents([item], "x", 0, 0, cells), tokens=tokens, pooled=pooled, seeds=[seed], passes=3,
        )[0, : item.valid[0], : item.valid[1]]  # fmt: skip
        assert mean_v[n] == pytest.approx(float(v.double().mean()), rel=1e-5)
        assert stage.u_of[item.chip.id] == pytest.approx(float(scale.u(v[None])), rel=1e-5)
        # and sampling itself, given the LR; the cache rounds to 8 bit and float16
        result = model.upscale(item.chip.load()[0], item.valid, captions=[item.chip.caption], seeds=[(seed,)], steps=1)
        assert mean_v[n] == pytest.approx(float(result.mean_v[0]), rel=0.02)
    assert len(set(mean_v.tolist())) == 6


def test_without_captions_the_bank_is_measured_without(cache: Cache, model: RareFlow) -> None:
    with_captions, without = (
        control_stage(model, cache, with_changes(ALL, {"text": {"captions": c}})) for c in (True, False)
    )
    with_captions.fill_bank()
    without.fill_bank()
    assert bool((with_captions.mean_v != without.mean_v).all())
    asked: list[str] = []
    without.inputs = lambda texts: (asked.extend(texts), inputs_of(model)(texts))[1]
    without.fill_bank()
    assert asked == [""] * 6


def test_the_share_of_random_u(cache: Cache, model: RareFlow) -> None:
    seen = {}
    for share in (0.0, 0.3, 1.0):
        config = small_config({"train": {"random_u": share, "control": {"crop_px": 12}}})
        stage = control_stage(model, cache, config)
        stage.u_of = {item.chip.id: 2.0 + n for n, item in enumerate(cache.items)}  # outside of what is drawn
        us, ids = [], []
        for step in range(150):
            batch, names = stage.batch(step)
            us += batch["u"].tolist()
            ids += names
        assert all(u == stage.u_of[i] for u, i in zip(us, ids, strict=True) if u > 1)
        drawn = [u for u in us if u <= 1]
        assert len(drawn) / 300 == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)
        seen[share] = drawn
    assert min(seen[1.0]) < 0.05 and max(seen[1.0]) > 0.95 and np.mean(seen[1.0]) == pytest.approx(0.5, abs=0.07)


def test_u_is_0_before_the_bank_is_measured_and_without_gates(cache: Cache, model: RareFlow) -> None:
    for changes in ({"bank_every": 0}, {"bank_every": 3}):
        stage = control_stage(model, cache, small_config({"train": {"random_u": 0.0} | changes}))
        stage.before(1)
        assert not stage.u_of and not stage.batch(1)[0]["u"].any()
        stage.before(3)
        assert bool(stage.u_of) == bool(changes["bank_every"])
    mute = small_model(small_config({"control": {"gates": False}}))
    stage = control_stage(mute, cache)
    stage.before(0)
    assert not stage.u_of


def test_a_bank_of_some_chips_is_all_that_the_stage_draws_from_until_the_next(cache: Cache, model: RareFlow) -> None:
    config = small_config({"train": {"bank_every": 4, "bank_size": 2, "random_u": 0.0}})
    stage, banks = control_stage(model, cache, config), []
    for step in range(24):
        stage.before(step)
        batch, ids = stage.batch(step)
        if step % 4 == 0:
            banks.append({i.chip.id for i in stage.bank})
        assert {i.chip.id for i in stage.bank} == banks[-1] == set(stage.u_of) and set(ids) <= banks[-1]
        assert batch["u"].tolist() == pytest.approx([stage.u_of[i] for i in ids]) and batch["u"].all()
    assert all(len(bank) == 2 for bank in banks) and len(set(map(frozenset, banks))) > 2
    # A stage that goes on has the bank of the step before, to the last.
    later = control_stage(model, cache, config)
    later.load_extra(stage.extra_state())
    assert [i.chip.id for i in later.bank] == [i.chip.id for i in stage.bank] and later.u_of == stage.u_of
    assert later.fill_bank() == stage.fill_bank()


def test_without_gates_or_bank_the_stage_draws_from_all_chips(cache: Cache, model: RareFlow) -> None:
    mute = small_model(small_config({"control": {"gates": False}}))
    for of, config in ((mute, small_config()), (model, small_config({"train": {"bank_every": 0}}))):
        assert {name for step in range(9) for name in control_stage(of, cache, config).batch(step)[1]} == {
            i.chip.id for i in cache.items
        }


# --- the loop --------------------------------------------------------------------------------------------------------


def run(stage: Any, config: Config, folder: Path, report: Callable[..., None] = lambda *_: None) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    return run_stage(stage, config.train, folder, Accelerator(cpu=True), report)


def test_only_control_and_gates_train(cache: Cache, tmp_path: Path) -> None:
    model, config = small_model(), small_config({"train": {"control": {"steps": 3}}})
    frozen = (model.field.transformer, model.codec.vae, model.captions.table)  # type: ignore[attr-defined]
    trained = (model.field.control, model.field.gates)
    before, old = state_of(*frozen), state_of(*trained)
    seen: list[dict[str, bool]] = []
    stage = control_stage(model, cache, config)
    forward = stage.module.forward

    def watched(**batch: Tensor) -> Any:
        assert all(p.grad is None and not p.requires_grad for part in frozen for p in part.parameters())
        loss, terms = forward(**batch)
        ours = {n: p for part in trained for n, p in part.named_parameters()}  # type: ignore[union-attr]
        loss.backward(retain_graph=True)
        seen.append({n: p.grad is not None and bool(p.grad.any()) for n, p in ours.items()})
        for p in ours.values():
            p.grad = None
        return loss, terms

    stage.module.forward = watched  # type: ignore[method-assign]
    run(stage, config, tmp_path)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(before, state_of(*frozen), strict=True) for k in a)
    with_gradient = {name for step in seen for name, there in step.items() if there}
    assert {"p0", "pt", "pu"} <= with_gradient and len(seen) == 3
    # In the last block nothing reads what becomes of the text (diffusers' ControlNet computes it all the same), and a
    # key's bias only shifts a softmax: everything else trains.
    last = "transformer_blocks.1."
    dead = tuple(last + name for name in ("attn.to_add_out.", "attn.add_q_proj.", "attn.norm_added_q.", "ff_context."))
    for new, was in zip(state_of(*trained), old, strict=True):
        for name, value in new.items():
            if name in with_gradient:
                assert not torch.equal(value, was[name]), name
            elif torch.is_floating_point(value) and name != "pos_embed.pos_embed":
                assert name.startswith(dead) or name.endswith(("to_k.bias", "add_k_proj.bias")), name
    for part in (*frozen, *trained):
        assert part is not None and not any(p.requires_grad for p in part.parameters())
    assert not model.masks.training


def test_gates_have_a_rate_of_their_own_and_no_decay(cache: Cache, tmp_path: Path) -> None:
    config = small_config({"train": {"gate_lr": 0.25, "control": {"steps": 1, "lr": 0.5, "warmup": 0}}})
    model = small_model()
    stage = control_stage(model, cache, config)
    groups = stage.groups()
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in model.field.control.parameters()]  # type: ignore[union-attr]
    assert groups[1]["lr"] == 0.25 and groups[1]["weight_decay"] == 0.0 and len(groups[1]["params"]) == 3
    p0 = model.field.gates.p0.clone()  # type: ignore[union-attr]
    run(stage, config, tmp_path)
    state = read_state(tmp_path / "control.pt")
    assert state is not None
    moved = (state["parameters"][-3] - p0).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.25), rtol=0.05, atol=0)  # Adam's first step is the rate


def test_averages_are_what_remains(cache: Cache, tmp_path: Path) -> None:
    config = small_config({"train": {"ema": 0.9, "control": {"steps": 4}}})
    model = small_model()
    run(control_stage(model, cache, config), config, tmp_path)
    state = read_state(tmp_path / "control.pt")
    assert state is not None and state["step"] == 4
    ours = [*model.field.control.parameters(), *model.field.gates.parameters()]  # type: ignore[union-attr]
    assert all(torch.equal(p, s) for p, s in zip(ours, state["average"]["shadow_params"], strict=True))
    assert any(not torch.equal(p, s) for p, s in zip(ours, state["parameters"], strict=True))


def test_averaged_weights_are_there_for_a_while_only() -> None:
    from diffusers.training_utils import EMAModel

    p = nn.Parameter(torch.zeros(3))
    average = EMAModel([p], decay=0.5)
    p.data.fill_(1.0)
    with pytest.raises(KeyboardInterrupt), averaged(average, [p]):
        assert not p.any()
        raise KeyboardInterrupt
    assert torch.equal(p.data, torch.ones(3))


class Halves(PriorStage):
    """Two batches of two for each batch of four."""

    def batch(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        batch, ids = super().batch(step // 2)
        part = slice(2 * (step % 2), 2 * (step % 2) + 2)
        return {k: v[part] for k, v in batch.items()}, ids[part]


def test_two_accumulated_batches_have_the_gradient_of_one_of_twice_the_size(cache: Cache, tmp_path: Path) -> None:
    found = []
    for kind, accumulate in ((PriorStage, 1), (Halves, 2)):
        one = {"steps": 1, "batch": 4, "accumulate": accumulate, "warmup": 0}
        config = small_config({"train": {"clip_norm": 1e9, "prior": one}})
        model = small_model()
        stage = kind(model.field, model.captions.table, config, model.codec, cache, lambda step: {})  # type: ignore[attr-defined]
        run(stage, config, tmp_path / kind.__name__)
        state = read_state(tmp_path / kind.__name__ / "prior.pt")
        assert state is not None
        found.append({k: v["exp_avg"] for k, v in state["optimiser"]["state"].items()})  # 0.1 of the gradient
        found[-1]["loss"] = torch.tensor(read_log(tmp_path / kind.__name__ / "prior.jsonl")[0]["base"])
    assert found[0].keys() == found[1].keys() and len(found[0]) > 50
    largest = max(float(v.abs().max()) for v in found[0].values())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-5 * largest)


def test_dropout_is_active_in_training_the_control_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a whole training: no mask in vae and prior, masks without seeds in the control's forward passes, masks with
    seeds in measurements, and none in validation."""
    inside: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    keep = Masks.keep

    def watched(self: Masks, x: Tensor, p: float, layer: str) -> Tensor | None:
        found = keep(self, x, p, layer)
        kind = "off" if found is None else ("seeded" if self.seeds is not None else "training")
        seen[(inside[-1] if inside else "outside", kind)] += 1
        return found

    def marked(name: str, function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            inside.append(name)
            try:
                return function(*args, **options)
            finally:
                inside.pop()

        return call

    monkeypatch.setattr(Masks, "keep", watched)
    for kind in (stages_module.VaeModule, PriorModule, ControlModule):
        monkeypatch.setattr(kind, "forward", marked(kind.__name__, kind.forward))
    for where, name in ((run_module, "validate"), (stages_module, "measure_levels")):
        monkeypatch.setattr(where, name, marked(name, getattr(where, name)))
    monkeypatch.setattr(run_module, "_with_validation", lambda *rest: {})
    train_small(tmp_path / "out", small_config(ONE, {"train": {"control": {"steps": 2}}}))
    assert seen.pop(("outside", "off")) == 2  # the gates at their corners, for the card
    assert set(seen) == {("ControlModule", "training"), ("measure_levels", "seeded"), ("validate", "off")}


@pytest.mark.parametrize("fits", [1, 2])
def test_a_batch_that_does_not_fit_is_halved_and_has_the_same_gradient(cache: Cache, tmp_path: Path, fits: int) -> None:
    """Memory for ``fits`` samples of 4: the same step as with memory for all, dropout apart."""
    found = []
    for limit in (4, fits):
        one = {"steps": 1, "batch": 4, "accumulate": 2, "warmup": 0}
        config, model = small_config({"train": {"clip_norm": 1e9, "prior": one}}), small_model()
        stage = prior_stage(model, cache, config)
        forward, sizes = stage.module.forward, []

        def runs_out(limit: int = limit, sizes: list = sizes, forward: Any = forward, **batch: Tensor) -> Any:
            sizes.append(len(batch["z0"]))
            if sizes[-1] > limit:
                raise torch.OutOfMemoryError("no room")
            return forward(**batch)

        stage.module.forward = runs_out  # type: ignore[method-assign]
        said: list[dict[str, float]] = []
        run(stage, config, tmp_path / str(limit), lambda *words, said=said: said.append(words[3]))
        assert [s["samples_at_once"] for s in said if "samples_at_once" in s] == {4: [], 2: [2], 1: [2, 1]}[limit]
        state = read_state(tmp_path / str(limit) / "prior.pt")
        assert state is not None
        found.append({k: v["exp_avg"] for k, v in state["optimiser"]["state"].items()})
        found[-1]["loss"] = torch.tensor(read_log(tmp_path / str(limit) / "prior.jsonl")[0]["base"])
    largest = max(float(v.abs().max()) for v in found[0].values())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-5 * largest)


def test_a_sample_that_does_not_fit_is_one_line(cache: Cache, tmp_path: Path) -> None:
    stage, config = prior_stage(small_model(), cache, small_config(ONE)), small_config(ONE)

    def runs_out(**batch: Tensor) -> Any:
        raise torch.OutOfMemoryError("no room")

    stage.module.forward = runs_out  # type: ignore[method-assign]
    with pytest.raises(RareflowError, match=r"stage prior: one sample of 108 px does not fit.*lower crop_px") as error:
        run(stage, config, tmp_path / "out")
    one_line(error)


def test_averages_on_the_host_are_the_same(cache: Cache, tmp_path: Path) -> None:
    states = []
    for where in ("device", "host"):
        config, model = small_config({"train": {"ema": 0.9, "ema_on": where, "control": {"steps": 3}}}), small_model()
        run(control_stage(model, cache, config), config, tmp_path / where)
        states.append(state_of(model.field.control, model.field.gates))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(*states, strict=True) for k in a)


def test_an_optimiser_of_8_bits_needs_a_gpu(cache: Cache, tmp_path: Path) -> None:
    config = small_config({"train": {"optimiser": "adamw_8bit"}})
    with pytest.raises(RareflowError, match="found adamw_8bit, which needs a GPU, expected adamw"):
        run(control_stage(small_model(), cache, config), config, tmp_path)


def test_batches_are_read_ahead_but_not_past_a_new_bank(cache: Cache, tmp_path: Path) -> None:
    config = small_config({"train": {"bank_every": 3, "bank_size": 2, "control": {"steps": 7}}})
    stage = control_stage(small_model(), cache, config)
    order: list[tuple[str, int]] = []
    batch, fill, forward = stage.batch, stage.fill_bank, stage.module.forward
    stage.batch = lambda step: (order.append(("read", step)), batch(step))[1]  # type: ignore[method-assign]
    stage.fill_bank = lambda: (order.append(("bank", 0)), fill())[1]  # type: ignore[method-assign]

    def slow(**given: Tensor) -> Any:
        found = forward(**given)
        time.sleep(0.2)  # the reader has time for what comes next
        order.append(("step", 0))
        return found

    stage.module.forward = slow  # type: ignore[method-assign]
    run(stage, config, tmp_path)
    names = [what if what != "read" else str(step) for what, step in order]
    assert " ".join(names) == "bank 0 1 step 2 step step bank 3 4 step 5 step step bank 6 step"


def test_the_best_validation_is_what_remains_if_it_is_to_be_kept(cache: Cache, tmp_path: Path) -> None:
    """Also after a stop between the best one and the last."""
    losses = [0.9, 0.3, 0.5, 0.6]
    kept = {}
    for keep in ("best", "last"):
        config = small_config({"train": {"keep": keep, "ema": 0.5, "control": {"steps": 4}}})
        expected = small_model()
        stage, shadows = control_stage(expected, cache, config), []

        def watched(step: int, stage: Any = stage, shadows: list = shadows) -> dict[str, float]:
            shadows.append(state_of(stage.field.control, stage.field.gates))
            return {"loss": losses[step - 1]}

        stage.validate = watched  # type: ignore[method-assign]
        assert run(stage, config, tmp_path / keep)["loss"] == (0.3 if keep == "best" else 0.6)
        kept[keep] = state_of(expected.field.control, expected.field.gates)
        wanted = shadows[1 if keep == "best" else 3]
        assert all(torch.equal(a[k], b[k]) for a, b in zip(kept[keep], wanted, strict=True) for k in a)
    again, config = small_model(), small_config({"train": {"keep": "best", "ema": 0.5, "control": {"steps": 4}}})
    for _ in range(2):
        stage = control_stage(again, cache, config)

        def stops(step: int, first: bool = _ == 0) -> dict[str, float]:
            if first and step == 3:
                raise KeyboardInterrupt
            return {"loss": losses[step - 1]}

        stage.validate = stops  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            run(stage, config, tmp_path / "stopped")
    found = state_of(again.field.control, again.field.gates)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(found, kept["best"], strict=True) for k in a)


def test_the_prior_never_sees_a_degraded_copy_and_the_control_does(model: RareFlow, tmp_path: Path) -> None:
    config = small_config({"train": {"augment": {"copies": 2, "degraded": 0.5}, "bank_every": 0}})
    data = small_data(6)
    cache = make_cache(tmp_path, data.train, model.codec, augment=config.train.augment)
    degraded = {i.name for i in cache.items if i.degraded}
    assert 0 < len(degraded) < 12
    seen = {
        stage.name: {name for step in range(12) for name in stage.batch(step)[1]}
        for stage in (prior_stage(model, cache, config), control_stage(model, cache, config))
    }
    assert seen["prior"] == {i.name for i in cache.items} - degraded
    assert seen["control"] == {i.name for i in cache.items}
    spoilt = make_cache(tmp_path / "all", data.train, model.codec, augment=AugmentConfig(degraded=1.0))
    with pytest.raises(RareflowError, match="found no chip whose LR is left as it is"):
        prior_stage(model, spoilt, config)


# --- a loss or a gradient that is not finite -------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_stop_for_a_loss_that_is_not_finite_names_the_chips_and_keeps_the_last_state(
    cache: Cache, tmp_path: Path, what: str
) -> None:
    config = small_config({"train": {"bank_every": 4, "bank_size": 2, "control": {"steps": 6, "crop_px": 60}}})
    expected = small_model()
    run(control_stage(expected, cache, config), config, tmp_path / "whole")

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * float("nan")

    model = small_model()
    stage = control_stage(model, cache, config)
    forward, calls = stage.module.forward, 0

    def fails(**batch: Tensor) -> Any:
        nonlocal calls
        calls += 1
        loss, terms = forward(**batch)
        if calls == 4:
            loss = loss * float("nan") if what == "loss" else Square.apply(loss)
        return loss, terms

    stage.module.forward = fails  # type: ignore[method-assign]
    with pytest.raises(RareflowError) as error:
        run(stage, config, tmp_path / "out")
    text = one_line(error)
    ids = control_stage(model, cache, config).batch(3)[1]
    assert f"stage control, step 3: the {what} is nan for the chips {', '.join(ids)};" in text
    assert "the state of the last save is kept: look at those chips" in text
    state = read_state(tmp_path / "out" / "control.pt")
    assert state is not None and state["step"] == 2
    assert all(bool(p.isfinite().all()) for p in state["parameters"])
    again = small_model()
    run(control_stage(again, cache, config), config, tmp_path / "out")
    assert all(
        torch.equal(a[k], b[k])
        for a, b in zip(state_of(again.field.control, again.field.gates),
                        state_of(expected.field.control, expected.field.gates), strict=True)
        for k in a
    )  # fmt: skip

    def steps(folder: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in x.items() if k != "seconds"} for x in read_log(tmp_path / folder / "control.jsonl")]

    assert steps("out") == steps("whole")  # what was logged after the last save is forgotten


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_while_saving_is_one_line(tmp_path: Path) -> None:
    """torch's writer makes an error of its own of what the system says."""
    (tmp_path / ".control.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(RareflowError, match=r"control\.pt cannot be written: .*; free some space and run") as error:
        write_state(tmp_path / "control.pt", {"step": 1, "big": torch.zeros(1 << 20)})
    one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "control.pt"
    write_state(path, {"step": 1})

    def full(state: object, where: Path) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(RareflowError, match="No space left on device; free some space") as error:
            write_state(path, {"step": 2})
    one_line(error)
    assert read_state(path) == {"step": 1} and [p.name for p in tmp_path.iterdir()] == ["control.pt"]
    assert read_state(tmp_path / "none.pt") is None


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.write_text, (Path("harm"), "done"))


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04", {"other": 1}, [1], Harmful()])
def test_a_file_that_is_no_state_is_one_line_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "vae.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(RareflowError, match=r"is no state of a training.*remove it to begin anew") as error:
        read_state(path)
    one_line(error)
    assert not (tmp_path / "harm").exists()
