"""The metrics with networks, run whole on patterned weights and held against the plain library with the same ones.

The real weights are hundreds of megabytes. A file of overlapping views holds every tensor of the same shapes in a
few hundred kilobytes, so that the path from the file to the number is the real one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bench import weights
from bench.core.files import sha256
from bench.core.image import Image
from bench.metrics import networks, realism
from bench.metrics.base import Estimate, Metric, Reference, Score, Setting
from bench.metrics.distances import covered
from bench.metrics.lookup import _noting, files_of
from bench.metrics.niqe import Niqe
from bench.metrics.perceptual import Dists, LpipsAlex, LpipsVgg
from bench.metrics.realism import FidTf, KidTf, ManiqaKoniq
from bench.metrics.scorer import metric_class
from bench.weights import listing, search
from tests.reference import random_weights
from tests.reference.random_weights import KONIQ, accepted, narrow_maniqa
from tests.reference.random_weights import state as random_state

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

ALEXNET, VGG16 = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"


def patterned(state: dict[str, torch.Tensor], seed: int = 0, gain: float = 2.0) -> dict[str, torch.Tensor]:
    """The same names and shapes: matrices are views of one short seeded line each, norms do nothing, biases are 0.

    ``gain`` over the inputs is the variance of a matrix' numbers: what keeps a network's activations near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            made[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif tensor.ndim < 2:
            made[name] = torch.full(tensor.shape, 1.0 if name.endswith(("weight", "running_var")) else 0.0)
        else:
            line = torch.randn(sum(tensor.shape), generator=generator) * (gain / tensor[0].numel()) ** 0.5
            made[name] = torch.as_strided(line, tensor.shape, [1] * tensor.ndim)
    return made


def same(ours: Any, network: torch.nn.Module, *inputs: torch.Tensor, **options: Any) -> None:
    """Assert that ``ours`` is what a library's network says, to a few times what rounding makes of the network itself.

    How far a network in single precision is from itself in double is measured, and must be little: otherwise the
    weights make numbers out of rounding, and agreement would say nothing.
    """
    exact_network = copy.deepcopy(network).double()
    if hasattr(network, "feature_extractor_internal_dtype"):  # torch-fidelity's brings its input to a type of its own
        exact_network.feature_extractor_internal_dtype = torch.float64
    with torch.no_grad():
        single = _array(network(*inputs, **options))
        exact = _array(exact_network(*(x.double() if x.is_floating_point() else x for x in inputs), **options))
    size = np.abs(exact).max()
    itself = np.abs(single - exact).max() / size
    apart = np.abs(np.reshape(ours, exact.shape) - exact).max() / size
    assert 1e-3 < size < 1e3 and itself < 1e-5, f"ill-conditioned: {itself:.1e} of {size:.3g} from itself in float64"
    assert apart < 4 * itself + 8 * np.finfo(np.float32).eps, f"{apart:.1e} from the library, {itself:.1e} from itself"


def _array(made: Any) -> np.ndarray:
    """What a network says, as an array; torch-fidelity's has one tensor for each kind of features."""
    tensor = made[0] if isinstance(made, tuple) else made
    return np.asarray(tensor.detach().double().numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A weights folder with patterned trunks, listed with their own hashes."""
    place = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        entries = dict(weights.listed())
        patch.setattr(listing, "_committed", lambda: entries)
        for constructor, file in (("alexnet", ALEXNET), ("vgg16", VGG16)):
            with torch.device("meta"):
                features = getattr(torchvision.models, constructor)(weights=None).features
            add(place, file, {f"features.{k}": v for k, v in patterned(features.state_dict()).items()})
        yield place


def add(folder: Path, file: str, state: dict[str, torch.Tensor]) -> None:
    """Save ``state`` as a listed file, and list it with the hash that it has."""
    torch.save(state, folder / file)
    weights.listed()[file] = msgspec.structs.replace(weights.listed()[file], sha256=sha256(folder / file))


def images(height: int = 64, width: int = 80, seed: int = 0) -> tuple[Estimate, Reference]:
    random = np.random.default_rng(seed)
    clean = gaussian_filter(random.random((height, width, 3)), (2, 2, 0))
    clean = (clean - clean.min()) / np.ptp(clean)
    noisy = np.clip(clean + random.normal(0, 0.1, clean.shape), 0, 1)
    a, b = (np.float32(np.rint(x * 255) / 255) for x in (clean, noisy))
    valid = np.ones((height, width), bool)
    lr = Image(a[::4, ::4].copy(), "display", ("R", "G", "B"), valid[::4, ::4])
    return Estimate(b, b), Reference(f"{seed}", "a", a, a, None, None, lr, valid)


def value(metric: Metric, estimate: Estimate, reference: Reference) -> float:
    score = metric.assess(estimate, reference)
    assert score.value is not None, score.reason
    return score.value


def tensors(estimate: Estimate, reference: Reference) -> list[torch.Tensor]:
    return [networks.as_tensor(x, "cpu") for x in (estimate.display, reference.display)]


@pytest.mark.parametrize(("metric", "net", "trunk"), [(LpipsAlex, "alex", ALEXNET), (LpipsVgg, "vgg", VGG16)])
def test_lpips_is_the_library(metric: type[Metric], net: str, trunk: str, folder: Path, monkeypatch: Any) -> None:
    lpips = pytest.importorskip("lpips")
    state = torch.load(folder / trunk, weights_only=True)
    constructor = {"alex": "alexnet", "vgg": "vgg16"}[net]
    original = getattr(torchvision.models, constructor)
    ours = metric(Setting(weights_dir=folder))
    pair = images()
    found = value(ours, *pair)
    monkeypatch.setattr(torchvision.models, constructor, plain_constructor(original))
    plain = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    for part in plain.net.children():
        part.load_state_dict({k: state[f"features.{k}"] for k in part.state_dict()})
    same(found, plain.eval(), *tensors(*pair), normalize=True)
    assert value(ours, Estimate(pair[1].display, pair[1].display), pair[1]) == 0.0


def plain_constructor(original: Callable[..., Any]) -> Callable[..., Any]:
    """torchvision's constructor without pretrained weights, and without its classifier's memory."""

    def construct(pretrained: bool = False) -> Any:
        with torch.device("meta"):
            network = original(weights=None)
        network.features.to_empty(device="cpu")
        return network

    return construct


def test_dists_is_the_library(folder: Path, monkeypatch: Any) -> None:
    DISTS_pytorch = pytest.importorskip("DISTS_pytorch")
    pair = images()
    ours = Dists(Setting(weights_dir=folder))
    found = value(ours, *pair)
    state = torch.load(folder / VGG16, weights_only=True)
    monkeypatch.setattr(torchvision.models, "vgg16", plain_constructor(torchvision.models.vgg16))
    plain = DISTS_pytorch.DISTS(load_weights=False)
    for i in range(1, 6):
        stage = getattr(plain, f"stage{i}")
        stage.load_state_dict({k: state.get(f"features.{k}", v) for k, v in stage.state_dict().items()})
    published = torch.load(Path(DISTS_pytorch.__file__).parent / "weights.pt", weights_only=True, map_location="cpu")
    plain.alpha.data, plain.beta.data = published["alpha"], published["beta"]
    same(found, plain.eval(), *tensors(*pair))
    assert value(ours, Estimate(pair[1].display, pair[1].display), pair[1]) == pytest.approx(0.0, abs=1e-6)


@pytest.fixture(scope="module")
def inception(folder: Path) -> Any:
    """torch-fidelity's own network on the patterned file, which the metrics use too."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    extractor = module.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(extractor, "load_state_dict", lambda *a, **k: None)
        empty = extractor("inception-v3-compat", ["2048"])
    add(folder, realism.INCEPTION_FILE, patterned(empty.state_dict(), gain=0.9))
    path = str(folder / realism.INCEPTION_FILE)
    return extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)


def test_fid_and_kid_are_torch_fidelity(folder: Path, inception: Any) -> None:
    setting = Setting(weights_dir=folder)
    fid, kid = FidTf(setting), KidTf(setting)
    pairs = [images(40, 50, seed) for seed in range(3)]
    features = [fid.gather(*pair) for pair in pairs]
    eight_bit = [
        torch.from_numpy(np.moveaxis(np.uint8(np.rint(x * 255)), 2, 0)[None].copy())
        for estimate, reference in pairs
        for x in (estimate.display, reference.display)
    ]
    with torch.no_grad():
        plain = torch.cat([inception(x)[0] for x in eight_bit]).numpy()
    ours = np.stack([f[side] for f in features for side in ("prediction", "reference")])
    assert ours.shape == (6, 2048) and ours.dtype == np.float32
    for mine, image in zip(ours, eight_bit, strict=True):
        same(mine, inception, image)
    assert np.ptp(plain, axis=0).max() > 1e-2 * plain.max()
    score = fid.combine(features)
    assert score.value == pytest.approx(realism.frechet_distance(plain[0::2], plain[1::2]), rel=1e-3, abs=1e-9)
    assert score.details == {"images": 3}
    theirs = realism.kernel_distance(plain[0::2], plain[1::2])
    assert kid.combine(features).value == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    assert "at least 2 images" in str(fid.combine(features[:1]).reason)


def test_fid_and_kid_share_one_extraction(folder: Path, inception: Any, monkeypatch: Any) -> None:
    setting = Setting(weights_dir=folder)
    fid, kid = FidTf(setting), KidTf(setting)
    (estimate, reference), (other, _) = images(32, 32, 0), images(32, 32, 1)
    calls: list[Any] = []
    extract = realism._Inception._extract
    monkeypatch.setattr(realism._Inception, "_extract", lambda self, x: calls.append(x) or extract(self, x))
    first, second = fid.gather(estimate, reference), kid.gather(estimate, reference)
    assert len(calls) == 2
    assert all((first[k] == second[k]).all() for k in first)
    fid.gather(other, reference)
    assert len(calls) == 3
    again = fid.gather(estimate, reference)
    assert (again["prediction"] == first["prediction"]).all()


def test_frechet_distance_of_itself_is_zero() -> None:
    x = np.random.default_rng(0).normal(0, 1, (20, 64))
    assert realism.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    assert realism.frechet_distance(x, x + 1) == pytest.approx(64.0, rel=1e-9)
    tall = np.random.default_rng(0).normal(0, 1, (200, 8))
    assert realism.frechet_distance(tall, 3 * tall - 2 * tall.mean(0)) == pytest.approx(4 * tall.var(0, ddof=1).sum())
    assert realism.kernel_distance(x[:10], x[10:]) == pytest.approx(realism.kernel_distance(x[10:], x[:10]))


# --- MANIQA -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(200, 200), (150, 200), (225, 300), (400, 256), (512, 512), (40, 61)])
def test_maniqa_crops_are_those_of_pyiqa(height: int, width: int) -> None:
    arch_util = pytest.importorskip("pyiqa.archs.arch_util")
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    theirs = arch_util.uniform_crop(x, crop_size=224, crop_num=20)
    corners = realism._crop_grid(height, width)
    assert sum(corners.values()) == 20
    ours = {c: realism._crop(x, 224, 20, corners=[c]) for c in corners}
    assert all(crop.shape == (1, 3, 224, 224) for crop in ours.values())
    matched = [next((c for c in ours if torch.equal(ours[c][0], crop)), None) for crop in theirs]
    assert {c: matched.count(c) for c in corners} == dict(corners)


def test_maniqa_is_pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole metric against pyiqa's forward pass: four crops, a 32nd of its width; only its listed file is read."""
    for name, number in (("_GRID", 2), ("_STEPS", 2), ("_CROPS", 4)):
        monkeypatch.setattr(realism, name, number)
    estimate, reference = images(150, 200)
    assert sorted(realism._crop_grid(150, 200).values()) == [2, 2]
    with narrow_maniqa() as build, accepted(KONIQ) as setting:
        with files_of("maniqa", setting.weights_dir) as read:
            found = value(ManiqaKoniq(setting), estimate, reference)
        assert set(read) == set(ManiqaKoniq.weights_files)
        plain = build(scale=0.8, test_sample=4)
        plain.load_state_dict({k.removeprefix("module."): v for k, v in random_state(KONIQ).items()})
        same(found, plain, networks.as_tensor(estimate.display, "cpu"))


# --- files, quiet, no downloads --------------------------------------------------------------------------------------


def test_wrong_or_missing_weights_are_reasons(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pair = images()
    missing = LpipsAlex(Setting(weights_dir=tmp_path)).assess(*pair)
    assert missing.value is None and f"weights missing: {ALEXNET}" in str(missing.reason)
    (tmp_path / ALEXNET).write_bytes(b"something else")
    wrong = LpipsAlex(Setting(weights_dir=tmp_path)).assess(*pair)
    assert wrong.value is None and f"weights wrong: {ALEXNET}" in str(wrong.reason)
    assert str(tmp_path) not in str(wrong.reason)  # it becomes part of the run's plan
    monkeypatch.setattr(listing, "_committed", functools.cache(lambda listed=dict(weights.listed()): dict(listed)))
    add(tmp_path, ALEXNET, {"features.0.weight": torch.zeros(3)})
    unfit = LpipsAlex(Setting(weights_dir=tmp_path)).assess(*pair)
    assert unfit.value is None and "does not fit" in str(unfit.reason)


def test_weights_are_never_unpickled(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    monkeypatch.setattr(listing, "_committed", functools.cache(lambda listed=dict(weights.listed()): dict(listed)))
    add(tmp_path, ALEXNET, {"features.0.weight": Trap()})
    score = LpipsAlex(Setting(weights_dir=tmp_path)).assess(*images())
    assert score.value is None and "cannot be read" in str(score.reason)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("metric", [LpipsAlex, LpipsVgg, Dists, FidTf, KidTf, Niqe])
def test_a_metric_opens_its_listed_files_and_no_other(
    metric: type[Metric], folder: Path, inception: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """The libraries' own caches hold files of the right names here, and none of them is looked at."""
    from huggingface_hub import constants
    from scipy.io import savemat

    pytest.importorskip("pyiqa" if metric is Niqe else metric.package)
    if metric is Niqe:  # by its library, which wants the release's file
        given = tmp_path / Niqe.weights_files[0]
        savemat(given, {"mu_prisparam": np.ones((1, 36)), "cov_prisparam": np.eye(36)})
        entries = dict(weights.listed())
        entries[given.name] = msgspec.structs.replace(entries[given.name], sha256=sha256(given))
        monkeypatch.setattr(listing, "_committed", lambda: entries)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    for cache in ("torch/hub/checkpoints", "torch/hub/pyiqa"):
        (tmp_path / cache).mkdir(parents=True)
        for file in weights.listed():
            (tmp_path / cache / file).write_bytes(b"from nowhere")
    ours = metric(Setting(weights_dir=tmp_path, exact=True) if metric is Niqe else Setting(weights_dir=folder))
    read: dict[str, str] = {}
    with _noting("x", read):  # a file that has a listed name and other bytes raises
        assert ours.missing() is None
        realism._inception.cache_clear()
        ours.setup()
    carried = {f for f in metric.weights_files if weights.listed()[f].package_path}
    assert set(read) == set(metric.weights_files) - carried


def test_setup_is_quiet_and_leaves_random_numbers_alone(folder: Path, inception: Any, capfd: Any) -> None:
    setting = Setting(weights_dir=folder)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global generators are what is looked at
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    for metric in (LpipsAlex, LpipsVgg, Dists):
        metric(setting).setup()
    FidTf(setting).setup()
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    out = capfd.readouterr()
    assert out.out == "" and out.err == ""


@pytest.mark.parametrize("metric", [LpipsAlex, LpipsVgg])
def test_small_images_are_reasons_where_the_network_fails(metric: type[Metric], folder: Path) -> None:
    side = metric.min_side_px
    assert value(metric(Setting(weights_dir=folder)), *images(side, side + 3)) > 0
    assert "smaller than" in str(metric(Setting(weights_dir=folder)).assess(*images(side - 1, side)).reason)


# --- DINOv2 and CLIP --------------------------------------------------------------------------------------------------


def test_dinov2_has_the_released_layout() -> None:
    """Its 304 million numbers of single precision are the published file, but for its index of names."""
    from bench.metrics.dinov2 import DinoV2

    with torch.device("meta"):
        state = DinoV2(1024, 24).state_dict()
    assert len(state) == 343 and {"pos_embed", "blocks.23.ls2.gamma", "patch_embed.proj.bias"} <= state.keys()
    assert state["pos_embed"].shape == (1, 1370, 1024) and state["blocks.0.attn.qkv.weight"].shape == (3072, 1024)
    numbers = 4 * sum(tensor.numel() for tensor in state.values())
    assert 0 < weights.listed()["dinov2_vitl14_pretrain.pth"].bytes - numbers < 200_000


def test_of_dinov2_one_extraction_serves_three_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.metrics import modern

    calls: list[Any] = []
    extract = modern.FdDinov2._extract
    monkeypatch.setattr(modern._Dinov2, "_extract", lambda self, x: calls.append(x) or extract(self, x))
    with random_weights.accepted(random_weights.DINOV2) as setting:
        made = [kind(setting) for kind in (modern.FdDinov2, modern.PrecisionDinov2, modern.RecallDinov2)]
        estimate, reference = images(32, 48, 0)
        features = [metric.gather(estimate, reference) for metric in made]
    assert len(calls) == 2 and all((f["reference"] == features[0]["reference"]).all() for f in features)


@pytest.mark.parametrize("name", ["fd_dinov2", "cmmd"])
def test_a_file_of_another_network_is_a_reason(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = metric_class(name)
    (file,) = metric.weights_files
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / file)
    entries = dict(weights.listed())
    entries[file] = msgspec.structs.replace(entries[file], sha256=sha256(tmp_path / file))
    monkeypatch.setattr(listing, "_committed", lambda: entries)
    found = metric(Setting(weights_dir=tmp_path)).gather(*images(32, 48, 0))
    assert isinstance(found, Score) and found.reason is not None and found.reason.kind == "missing"
    assert f"{file} does not fit its network" in str(found.reason)


def test_the_hash_that_was_recorded_is_in_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its publisher gives none: what was fetched first decides, and another file is another identity."""
    from bench.metrics.modern import DINOV2_FILE, FdDinov2

    # This machine's own weights folders may hold the file, recorded.
    monkeypatch.setattr(search, "folders", lambda weights_dir: [tmp_path])
    setting = Setting(weights_dir=tmp_path)
    assert "|w:unrecorded|" in FdDinov2(setting).identity()
    (tmp_path / DINOV2_FILE).write_bytes(b"tensors")
    assert "none was recorded" in str(FdDinov2(setting).missing())
    weights.record(tmp_path / DINOV2_FILE, source="https://example.org")
    assert f"|w:{sha256(tmp_path / DINOV2_FILE)[:8]}|" in FdDinov2(setting).identity()
    assert FdDinov2(setting).missing() is None


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    random = np.random.default_rng(0)
    cloud = random.normal(0, 1, (1500, 8))  # more than a block
    assert covered(cloud, cloud, 3) == 1.0
    assert covered(cloud + 100, cloud, 3) == covered(cloud, cloud + 100, 3) == 0.0
    assert covered(np.ones((5, 4)), np.ones((6, 4)), 3) == 1.0  # all alike: balls of radius 0 hold their centre
