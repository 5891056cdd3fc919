"""How fast the metrics are: our set against the libraries on a processor, or images per second on a GPU.

On a processor, in one run on the same images: each library called image by image as its documentation shows
(``tests.bench.peers``, in a process with torch's default threads), and our scoring processes for one model and for
four, the same code that ``rfbench run`` and ``rfbench score`` use. Then what the goals ask for one by one: the share of
each metric, the networks against their bare backbones, the distance step, memory, MANIQA. Official weights are not
needed: random ones do the same work. ``--out docs/speed.md`` writes what was printed.

With ``--device cuda`` only ours is measured, MANIQA included, and held against the same on the processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from PIL import Image as Picture

from bench.core import provenance
from bench.executors.processes import usual_workers
from bench.metrics import kernels
from bench.metrics.base import Estimate, Features, Metric, Reference, SetScore, Setting
from bench.metrics.scorer import ItemScores, Scorer, default_set, metric_class
from bench.score.pool import Scoring
from tests.bench import random_weights
from tests.bench.common import machine, register

random_weights.use()  # in the scoring processes, which import this module

MODELS = 4
WITHOUT = ("maniqa_koniq", "nll", "ece")  # minutes an image on a processor; no library call, no distribution here
PARTS = ("set", "backbones", "distances", "memory", "counts", "maniqa")
PIXELWISE = ("psnr_rgb", "ssim_rgb", "sam_rgb", "de00")
FREE = (*PIXELWISE, "fsim", "niqe")
"""What needs no weights of the set: all that a newcomer's first table has, but for what is of a distribution."""
NETWORKS = ("lpips_alex", "dists", "fid_tf")
GOALS = {"all": {1: 1.55, MODELS: 2.5}, "free": {1: 3.0, MODELS: 5.0}}
"""How many times the libraries' speed, by the number of models."""
_Lines = list[str]


# --- images -----------------------------------------------------------------------------------------------------------


def make_images(folder: Path, n: int, size: int) -> None:
    """``ref/`` and ``model0/`` to ``model3/``: n smooth random pictures of size x size px, noisy in four ways."""
    from scipy.ndimage import gaussian_filter

    for i in range(n):
        random = np.random.default_rng(i)
        clean = gaussian_filter(random.random((size, size, 3)), (2, 2, 0))
        clean = (clean - clean.min()) / np.ptp(clean)
        _write(folder / "ref" / f"{i:05d}.png", clean)
        for m in range(MODELS):
            _write(folder / f"model{m}" / f"{i:05d}.png", clean + random.normal(0, 0.02 * (m + 1), clean.shape))


def _write(path: Path, display: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.uint8(np.rint(np.clip(display, 0, 1) * 255))).save(path, compress_level=1)


def read(folder: Path, i: int, models: int) -> tuple[Reference, dict[str, dict[str, Estimate]]]:
    """A reference and what each model made of it, from their files."""
    sides = [np.float32(Picture.open(folder / s / f"{i:05d}.png")) / np.float32(255) for s in ("ref", *_names(models))]
    reference, *displays = sides
    valid = np.ones(reference.shape[:2], bool)
    return (
        Reference(f"{i:05d}", f"{i:05d}", reference, reference, None, None, None, valid),
        {name: {"sample": Estimate(d, d)} for name, d in zip(_names(models), displays, strict=True)},
    )


def _names(models: int) -> list[str]:
    return [f"model{m}" for m in range(models)]


# --- ours -------------------------------------------------------------------------------------------------------------


def score(scorer: Scorer, folder: Path, i: int, models: int) -> dict[str, ItemScores]:
    """An image by all models, in a scoring process."""
    found = scorer.score_models(*read(folder, i, models))
    for label, of_model in found.items():
        for name, s in of_model.scores["sample"].items():
            assert s.value is not None, f"{label}, {name}: {s.reason}"
    return found


def whole_set(folder: Path, n: int, models: int, names: Sequence[str], setting: Setting, workers: int) -> float:
    """Seconds that the scoring processes take for n images of some models, the sets' metrics included."""
    identities = {name: metric_class(name)(setting).identity() for name in names}
    sets = [m for name in names if (m := metric_class(name)(setting)).level == "set"]
    features: dict[tuple[str, str], dict[int, Features]] = {}
    with Scoring[int, dict[str, ItemScores]](identities, setting, workers) as pool:
        for _ in range(2 * workers):  # every process loads its networks
            list(pool.submit(0, score, folder, 0, models))
        list(pool.drain())
        started = time.perf_counter()

        def keep(finished: Iterator[tuple[int, dict[str, ItemScores]]]) -> None:
            for i, found in finished:
                for label, of_model in found.items():
                    for metric in sets:
                        features.setdefault((label, metric.name), {})[i] = of_model.features["sample"][metric.name]

        for i in range(n):
            keep(pool.submit(i, score, folder, i, models))
        keep(pool.drain())
        for label in _names(models):
            for metric in sets:
                of_set = features[label, metric.name]
                assert isinstance(metric.combine([of_set[i] for i in range(n)]), SetScore) or n < metric.min_images
        return time.perf_counter() - started


def shares(folder: Path, names: Sequence[str], setting: Setting, images: int) -> dict[str, tuple[float, float]]:
    """Of each metric the milliseconds an image takes for the first model and for every further one, in one thread."""
    scorer = Scorer(names, setting)
    spent = {name: np.zeros((images, 2)) for name in names}
    for i in range(-1, images):
        reference, estimates = read(folder, max(i, 0), 2)
        for metric in scorer.metrics:
            for m, label in enumerate(_names(2)):
                started = time.perf_counter()
                _one(metric, estimates[label]["sample"], reference)
                if i >= 0:
                    spent[metric.name][i, m] = time.perf_counter() - started
            reference.cache.pop(metric.name, None)
    return {name: tuple(1000 * np.median(s, axis=0)) for name, s in spent.items()}  # type: ignore[misc]


def _one(metric: Metric, estimate: Estimate, reference: Reference) -> float | Features:
    found = metric.assess(estimate, reference) if metric.level == "image" else metric.gather(estimate, reference)
    if isinstance(found, dict):
        return found
    assert found.value is not None, f"{metric.name}: {found.reason}"
    return found.value


# --- single goals -----------------------------------------------------------------------------------------------------


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each call, the best of some rounds in which they take turns; the first round is not counted."""
    best = dict.fromkeys(calls, float("inf"))
    for i in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if i:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def against_backbones(folder: Path, setting: Setting) -> _Lines:
    """Metrics with networks against their backbones alone, both images, one thread."""
    import torch
    import torchvision

    from bench.metrics.networks import as_tensor

    reference, estimates = read(folder, 0, 1)
    estimate = estimates["model0"]["sample"]
    assert reference.display is not None
    images = [as_tensor(d, "cpu") for d in (estimate.display, reference.display)]
    eight_bit = [(x * 255).round().to(torch.uint8) for x in images]
    inception = metric_class("fid_tf")(setting)
    inception.setup()
    weights = str(setting.weights_dir / random_weights.INCEPTION)  # type: ignore[operator]
    extractor = type(inception._network)  # type: ignore[attr-defined]
    plain = extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
    vgg = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])[:30]
    alexnet = torchvision.models.AlexNet().features[:12]
    backbones = {
        "lpips_alex": (alexnet, images),
        "lpips_vgg": (vgg, images),
        "dists": (vgg, images),
        "fid_tf": (plain, eight_bit),
    }
    lines = ["| metric | backbone alone, ms | metric, ms | ratio |", "|---|---|---|---|"]
    for name, (network, inputs) in backbones.items():
        metric = metric_class(name)(setting)
        network.eval()

        def bare(network: Any = network, inputs: Any = inputs) -> None:
            with torch.inference_mode():
                for x in inputs:
                    network(x)

        def ours(metric: Metric = metric) -> None:
            reference.cache.clear()
            estimate.cache.clear()
            _one(metric, estimate, reference)

        with threads(1):
            found = fastest({"bare": bare, "ours": ours}, 6)
        ratio = found["ours"] / found["bare"]
        lines.append(f"| {name} | {1000 * found['bare']:.0f} | {1000 * found['ours']:.0f} | {ratio:.2f} |")
    return lines


def maniqa(setting: Setting, *, pyiqa_too: bool) -> _Lines:
    """MANIQA against pyiqa at 150x200 px, where 20 crops are 5, and against its own products above 224 px."""
    import torch

    from bench.metrics.networks import as_tensor

    metric = metric_class("maniqa_koniq")(setting)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, 1, 200)
        reference, estimates = read(folder, 0, 1)
    square = estimates["model0"]["sample"].display
    wide = np.ascontiguousarray(square[:150])
    _one(metric, Estimate(square, square), reference)  # loads the network
    cores = provenance.cores()
    with threads(cores):
        started = time.perf_counter()
        ours = _one(metric, Estimate(wide, wide), _of(wide))
        five = time.perf_counter() - started
        started = time.perf_counter()
        _one(metric, Estimate(square, square), reference)
        one = time.perf_counter() - started
        lines.append(f"ours, 200x200 px (1 distinct crop): {one:.1f} s; 150x200 px (5 distinct crops): {five:.1f} s")
        if pyiqa_too:
            network = random_weights.maniqa_network().eval()
            network.load_state_dict(torch.load(setting.weights_dir / random_weights.MANIQA, weights_only=True))  # type: ignore[operator]
            with torch.no_grad():
                started = time.perf_counter()
                theirs = float(network(as_tensor(wide, "cpu")))
                twenty = time.perf_counter() - started
            lines.append(
                f"pyiqa (20 crops at every size): {twenty:.1f} s; ours is {twenty / five:.1f} times faster at 150x200 "
                f"px, {twenty / one:.1f} times at 200x200 px; |ours - pyiqa| = {abs(ours - theirs):.1e} of {theirs:.3g}"  # type: ignore
            )
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            _one(metric, Estimate(square, square), reference)
    spent = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
    products = sum(t for key, t in spent.items() if any(p in key for p in _PRODUCTS))
    ratio = sum(spent.values()) / products
    lines.append(f"a crop takes {ratio:.2f} times its own convolutions and products (profiled, {cores} threads)")
    return lines


_PRODUCTS = ("aten::addmm", "aten::bmm", "aten::mm", "conv", "scaled_dot_product")


def _of(display: np.ndarray) -> Reference:
    return Reference("a", "a", display, display, None, None, None, np.ones(display.shape[:2], bool))


def distances() -> _Lines:
    """The step from features to FID and KID, one thread."""
    lines = ["| images | FID, s | KID, s |", "|---|---|---|"]
    for n in (200, 1000, 3000):
        random = np.random.default_rng(0)
        features = [{s: random.random(2048, np.float32) for s in ("prediction", "reference")} for _ in range(n)]
        steps = {
            name: functools.partial(metric_class(name)(Setting()).combine, features) for name in ("fid_tf", "kid_tf")
        }
        found = fastest(steps, 2 if n < 2000 else 1)
        lines.append(f"| {n} | {found['fid_tf']:.2f} | {found['kid_tf']:.2f} |")
    return lines


def counts(names: Sequence[str], setting: Setting) -> _Lines:
    """Of each metric the kernels, products and transfers for the first model's image and for a further one's."""
    columns = [f"{what}{when}" for what in ("kernels", "GFLOP", "up, MB", "down") for when in (", first", ", further")]
    lines = [f"| metric | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name), 1, 512)
        warm, sides = (read(Path(name), 0, 2) for _ in range(2))
    for name in names:
        metric = metric_class(name)(setting)
        _one(metric, warm[1]["model0"]["sample"], warm[0])  # loads its network; tables of a size are made once
        warm[0].cache.clear()
        reference, estimates = dataclasses.replace(sides[0], cache={}), sides[1]
        found = [_Counted.of(functools.partial(_one, metric, estimates[m]["sample"], reference)) for m in _names(2)]
        pairs = [(f"{c.kernels}", f"{c.flops / 1e9:.3g}", f"{c.up / 1e6:.1f}", f"{c.down}") for c in found]
        lines.append(f"| {name} | " + " | ".join(f"{a} | {b}" for a, b in zip(*pairs, strict=True)) + " |")
        for of_model in estimates.values():
            of_model["sample"].cache.clear()
    return lines


@dataclasses.dataclass
class _Counted:
    """What some work would have a device do; ``up`` in bytes, ``down`` the arrays and numbers that are read back."""

    kernels: int = 0
    flops: int = 0
    up: int = 0
    down: int = 0

    @classmethod
    def of(cls, work: Callable[[], object]) -> _Counted:
        """Do it, and count."""
        from unittest import mock

        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils.flop_counter import FlopCounterMode

        counted = cls()

        class Kernels(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                counted.kernels += not func.is_view and func._schema.name not in _NO_KERNELS
                return func(*args, **(kwargs or {}))

        make, from_numpy, cpu, number = torch.tensor, torch.from_numpy, torch.Tensor.cpu, torch.Tensor.__float__

        def up(made: torch.Tensor) -> torch.Tensor:
            counted.up += made.numel() * made.element_size()
            return made

        def down(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            counted.down += 1
            return cpu(tensor, *args, **kwargs)

        def read_back(tensor: torch.Tensor) -> float:
            counted.down += 1
            return number(tensor)

        products = FlopCounterMode(display=False)
        with (
            mock.patch.object(torch, "tensor", lambda *args, **kwargs: up(make(*args, **kwargs))),
            mock.patch.object(torch, "from_numpy", lambda array: up(from_numpy(array))),
            mock.patch.object(torch.Tensor, "cpu", down),
            mock.patch.object(torch.Tensor, "__float__", read_back),
            mock.patch.object(kernels, "_PIECE", sys.maxsize),  # pieces and single channels are for a processor's cache
            mock.patch.object(kernels, "_planes", lambda image: (image,)),
            products,
            Kernels(),
        ):
            work()
        counted.flops = products.get_total_flops()
        return counted


_NO_KERNELS = ("aten::_local_scalar_dense", "aten::detach", "aten::empty", "aten::empty_like", "aten::lift_fresh")


def memory() -> _Lines:
    """Peak memory of FID and KID at three numbers of images, each in a process of its own."""
    lines = ["| images | peak, MB |", "|---|---|"]
    for n in (1000, 4500, 7500):
        words = [sys.executable, "-m", "tests.bench.set_memory", str(n)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        lines.append(f"| {n} | {done.stdout.strip()} |")
    return lines


# --- what is printed --------------------------------------------------------------------------------------------------


def on_processor(given: argparse.Namespace, folder: Path, setting: Setting) -> _Lines:
    """Our set against the libraries."""
    names = [m for m in default_set() if m not in WITHOUT]
    workers = given.workers or usual_workers()
    lines: _Lines = []
    wanted = given.only or PARTS
    if "set" in wanted:
        peer_images = min(given.peers, given.n)
        peers = _peers(folder, peer_images, given.n)
        ours = {
            of: {k: whole_set(folder, given.n, k, chosen, setting, workers) / given.n for k in (1, MODELS)}
            for of, chosen in (("all", names), ("free", FREE))
        }
        with threads(1):
            parts = shares(folder, names, setting, min(given.n, 9))
        lines += _set_tables(given, peers, peer_images, ours, parts, workers)
    if "backbones" in wanted:
        lines += ["", "## Networks against their backbones", "", _BACKBONES, "", *against_backbones(folder, setting)]
    if "distances" in wanted:
        lines += ["", "## From features to FID and KID", "", _DISTANCES, "", *distances()]
    if "memory" in wanted:
        lines += ["", "## Memory of FID and KID", "", _MEMORY, "", *memory()]
    if "counts" in wanted:
        lines += ["", "## What a GPU would do, counted", "", _COUNTS, "", *counts(names, setting)]
    if "maniqa" in wanted:
        lines += ["", "## MANIQA", "", *(f"- {line}" for line in maniqa(setting, pyiqa_too=True))]
    return lines


_COUNTS = (
    "No GPU was at hand: these are operations counted on a processor at 512x512 px, not times. Kernels are torch's "
    "operations that compute (a GPU launches some thousand a hundredth of a second, so few of them bound nothing); "
    "GFLOP are those of convolutions and matrix products; up and down are arrays that would cross to the device and "
    "back, where what is read waits for all kernels before it. In a run PSNR, SSIM, SAM and ΔE00 share one crossing."
)
_BACKBONES = "Both images of a pair through torchvision's or torch-fidelity's network and nothing else; one thread."
_MEMORY = (
    "A process that reads the features of one image at a time from their files. Up to 2,048 images FID holds them all, "
    "then no more than twice that many rows however many there are."
)
_DISTANCES = "2,048 features an image, one thread. Goal: under 1 s for 1,000 images."


def _peers(folder: Path, images: int, n: int) -> dict[str, Any]:
    """The libraries, in a process with the threads and the waiting that torch has by default."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "OPENBLAS_", "MKL_"))}
    words = [sys.executable, "-m", "tests.bench.peers", str(folder), str(images), str(n)]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _set_tables(
    given: argparse.Namespace, peers: dict[str, Any], peer_images: int, ours: Mapping[str, Mapping[int, float]],
    parts: Mapping[str, tuple[float, float]], workers: int,
) -> _Lines:  # fmt: skip
    n, size, per_call = given.n, given.size, peers["ms"]
    step_ms = 1000 * peers["distance_s"] / n
    library = {"all": sum(per_call.values()) + step_ms, "free": sum(per_call[name] for name in FREE)}
    lines = [
        f"## The whole set without MANIQA, {n} images of {size}x{size} px",
        "",
        f"Libraries: {peer_images} of the images, one after the other, {peers['threads']} threads; every further model "
        "costs the same again. FID's distance step was measured apart, on random features of all "
        f"{n} images ({peers['distance_s']:.0f} s). Ours: {workers} scoring processes of one thread, all {n} images.",
        "",
        "| metrics | models | libraries, ms an image | ours, ms an image | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    for of, said in (("all", "all"), ("free", "those without weights")):
        for k, seconds in ours[of].items():
            theirs, mine = k * library[of], 1000 * seconds
            lines.append(f"| {said} | {k} | {theirs:.0f} | {mine:.0f} | {theirs / mine:.2f} | {GOALS[of][k]:g} |")
    lines += [
        "",
        "A library's call, and ours in one thread: for the first model, and for each further one.",
        "",
        "| metric | library, ms | share | ours, first, ms | share, 1 model | further, ms | share, 4 models |",
        "|---|---|---|---|---|---|---|",
    ]
    first, further = (sum(p[i] for p in parts.values()) for i in (0, 1))
    four = first + 3 * further
    for name, (one, more) in parts.items():
        lines.append(
            f"| {name} | {per_call[name]:.1f} | {100 * per_call[name] / library['all']:.0f} % | {one:.1f} | "
            f"{100 * one / first:.0f} % | {more:.1f} | {100 * (one + 3 * more) / four:.0f} % |"
        )
    lines.append(f"| FID's distance step | {step_ms:.1f} | {100 * step_ms / library['all']:.0f} % | | | | |")
    return [
        *lines,
        "",
        *_pixelwise(per_call, parts, workers),
        "",
        *limit(per_call, parts, ours["all"], workers, library["all"]),
    ]


def _pixelwise(per_call: Mapping[str, float], parts: Mapping[str, Sequence[float]], workers: int) -> _Lines:
    """The two goals of what is no network."""
    mine, theirs = (sum(found) for found in ([parts[m][0] for m in PIXELWISE], [per_call[m] for m in PIXELWISE]))
    networks = sum(parts[m][0] for m in NETWORKS)
    others = sum(one for name, (one, _) in parts.items() if name not in NETWORKS)
    return [
        f"PSNR, SSIM, SAM and ΔE00 together: {mine:.1f} ms an image in one thread, {mine / workers:.1f} in the "
        f"{workers} processes of a run, for the libraries' {theirs:.1f}: {mine / theirs:.2f} and "
        f"{mine / workers / theirs:.2f} of their time, for a goal of a third.",
        "",
        f"All but the networks of LPIPS, DISTS and Inception takes {others:.0f} ms an image, "
        f"{100 * others / networks:.0f} % of the networks' {networks:.0f}, for a goal of 5 %.",
    ]


CONVOLUTIONS = ("dists", "fid_tf")


def limit(
    per_call: Mapping[str, float], parts: Mapping[str, Sequence[float]], ours: Mapping[int, float], workers: int,
    library: float,
) -> _Lines:  # fmt: skip
    """How near to the goals of the whole set any program can come that does the same convolutions."""
    said = []
    for k, goal in GOALS["all"].items():
        least = sum(parts[m][0] + (k - 1) * parts[m][1] for m in CONVOLUTIONS) / workers
        ratio = k * library / (1000 * ours[k])
        models = f"{k} model{'s' * (k > 1)}"
        said.append(
            f"{models}: {ratio:.2f} for a goal of {goal:g}, {'reached' if ratio >= goal else 'not reached'}; "
            f"{k * library / least:.2f} if everything but these networks took no time"
        )
    share = sum(per_call[m] for m in CONVOLUTIONS) / library
    return [
        f"**The limit** is the networks of DISTS and FID: {100 * share:.0f} % of what the libraries need, the same "
        "convolutions in theirs and in ours, which the processor does no faster for either. Ours does each image's "
        f"once and in {workers} processes. {'. '.join(said)}.",
    ]


def on_gpu(given: argparse.Namespace, folder: Path, setting: Setting) -> _Lines:
    """Images per second of the whole set, MANIQA included; what dominates; how far the device moves a score."""
    names = [m for m in default_set() if m not in ("nll", "ece")]
    workers = given.workers or usual_workers()
    lines = [f"## On a GPU, {given.n} images of {given.size}x{given.size} px, MANIQA included", ""]
    for k in (1, MODELS):
        seconds = whole_set(folder, given.n, k, names, setting, workers)
        lines.append(f"- K = {k}: {k * given.n / seconds:.2f} scored images per second ({workers} scoring processes)")
    with threads(1):
        parts = shares(folder, names, setting, min(given.n, 5))
    total = sum(p[0] for p in parts.values())
    lines += ["", "| metric | first model, ms | share | further, ms |", "|---|---|---|---|"]
    lines += [f"| {m} | {a:.1f} | {100 * a / total:.0f} % | {b:.1f} |" for m, (a, b) in parts.items()]
    dominant = max(parts, key=lambda name: parts[name][0])
    lines += ["", f"{dominant} dominates: {100 * parts[dominant][0] / total:.0f} % of one process's time.", ""]
    return lines + moved_by_the_device(setting, names)


def moved_by_the_device(setting: Setting, names: Sequence[str]) -> _Lines:
    """One pair of 200x200 px (one crop of MANIQA) scored on both devices."""
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name), 1, 200)
        reference, estimates = read(Path(name), 0, 1)
    estimate = estimates["model0"]["sample"]
    lines = ["| metric | processor | GPU | difference |", "|---|---|---|---|"]
    for name in names:
        values = []
        for device in ("cpu", setting.device):
            reference.cache.clear()
            estimate.cache.clear()
            metric = metric_class(name)(Setting(device, setting.weights_dir))
            values.append(_one(metric, estimate, reference))
        a, b = values
        if isinstance(a, dict) and isinstance(b, dict):
            scale = np.abs(a["prediction"]).max()
            gap = np.abs(a["prediction"] - b["prediction"]).max() / scale
            lines.append(f"| {name} (features) | | | {gap:.1e} of the largest |")
        else:
            lines.append(f"| {name} | {a:.7f} | {b:.7f} | {abs(a - b):.1e} |")  # type: ignore[operator]
    return lines


def main() -> None:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.metrics", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="images")
    parser.add_argument("--size", type=int, default=256, help="their side, px")
    parser.add_argument("--peers", type=int, default=40, help="of these images the libraries get only so many")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for ours alone with MANIQA")
    parser.add_argument("--workers", type=int, help="scoring processes")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="on a processor")
    parser.add_argument("--out", type=Path, help="a Markdown file to write")
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        register(place / "site")
        on_a_gpu = given.device != "cpu"
        wants_maniqa = on_a_gpu or not given.only or "maniqa" in given.only
        random_weights.install(place / "weights", maniqa=wants_maniqa)
        make_images(place / "images", given.n, given.size)
        setting = Setting(given.device, place / "weights")
        measure = on_gpu if on_a_gpu else on_processor
        lines = ["# Speed of the metrics", "", f"`{_command()}`"]
        lines += ["", f"{machine(given.device)}. {_WEIGHTS}", "", _HOW, "", *measure(given, place / "images", setting)]
    lines += ["", f"The whole took {(time.perf_counter() - started) / 60:.1f} minutes."]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text)


_HOW = """\
How scoring saves time, and why no number moves by it:

- All models of a run are scored together, image by image and metric by metric. What a metric makes of the reference
  (features of LPIPS, DISTS and Inception, FSIM's phase congruency, Lab colours) is computed once, used for all of them
  and let go before the next metric. A model that is alone takes the same path: its scores are the same to the bit.
- Scoring processes have one thread each and take whole images: none waits for another, and no sum depends on how many
  there are. Waiting threads sleep (OMP_WAIT_POLICY=PASSIVE).
- PSNR, SSIM, FSIM, SAM, ΔE00 and NIQE are kernels of our own in torch, held to the libraries that define them.
- Distinct work only: MANIQA's crops that coincide once, and none of its blocks that nothing reads; FSIM's filters once
  a size; one extraction of Inception's features for FID and KID.
- FID's distance comes from singular values of a matrix no larger than the set (exact), not from a root of 2048x2048.
- On a GPU the processes share the device, each with its own networks. MANIQA's crops, which are nearly all of the work,
  go through it together; images do not, since a library may choose another kernel for another batch, and a score would
  depend on what was scored beside it."""


def _command() -> str:
    """What was asked for, without the place that the page goes to."""
    words, said = ["python -m tests.bench.metrics"], sys.argv[1:]
    for before, word in zip(["", *said], said, strict=False):
        if before != "--out" and not word.startswith("--out"):
            words.append(word)
    return " ".join(words)


_WEIGHTS = "Networks have random weights, which do the same work as the official ones; their scores mean nothing."


if __name__ == "__main__":
    main()
