"""Weight files full of seeded random numbers, so that two implementations can be given the same network.

The official trunks are hundreds of megabytes and cannot be had everywhere. What a trained network and a random one
share is everything but the numbers: layers, order, padding, scaling, pooling. Files lie in a folder of this process
and are accepted in place of the listed ones only within ``accepted``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from bench import weights
from bench.core.files import sha256
from bench.metrics.base import Setting
from bench.metrics.networks import replaced
from bench.weights import listing
from tests.reference.pictures import need

ALEXNET, VGG16 = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
KONIQ, PIPAL = "ckpt_koniq10k.pt", "MANIQA_PIPAL-ae6d356b.pth"
DINOV2, CLIP = "dinov2_vitl14_pretrain.pth", "ViT-L-14-336px.pt"
TRANSFORMERS = (KONIQ, PIPAL, DINOV2, CLIP)
WIDTH, DEPTH = 128, 2
"""Of random DINOv2 and CLIP, whose sizes are read from their files: an eighth of the width, a twelfth of the blocks."""
State = dict[str, Any]


@functools.cache
def _folder() -> Path:
    place = Path(tempfile.mkdtemp(prefix="rfbench-random-weights-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@contextlib.contextmanager
def accepted(*files: str) -> Iterator[Setting]:
    """Within the block the random files stand for the listed ones of these names; gives the setting to use."""
    with _listed(_folder(), {file: _written(file) for file in files}) as setting:
        yield setting


@contextlib.contextmanager
def _listed(folder: Path, hashes: Mapping[str, str]) -> Iterator[Setting]:
    entries = dict(weights.listed())
    for file, has in hashes.items():
        entries[file] = msgspec.structs.replace(entries[file], sha256=has)
    with mock.patch.object(listing, "_committed", lambda: entries):
        yield Setting(weights_dir=folder)


@functools.cache
def state(file: str) -> State:
    """The tensors of a random file, by name; CLIP's fit into half precision, in which the released ones are stored."""
    made = _random(_LAYOUTS[file](), zlib.crc32(file.encode()), 0.3 if file in TRANSFORMERS else 2.0)
    return {name: tensor.half().float() for name, tensor in made.items()} if file == CLIP else made


@functools.cache
def _written(file: str) -> str:
    """Write a random file; its SHA-256."""
    path = _folder() / file
    import torch

    if file == CLIP:
        _save_archive(state(file), path)
    else:
        torch.save(state(file), path)
    return sha256(path)


def _save_archive(tensors: State, path: Path) -> None:
    """An archive of TorchScript with these tensors, as OpenAI distributes CLIP."""
    import torch

    class Node(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Node()
    for name, tensor in tensors.items():
        *places, last = name.split(".")
        node: torch.nn.Module = root
        for place in places:
            if place not in dict(node.named_children()):
                node.add_module(place, Node())
            node = dict(node.named_children())[place]
        node.register_buffer(last, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what this file comes in
        torch.jit.script(root).save(str(path))


def _random(layout: State, seed: int, gain: float) -> State:
    """Values for every tensor of a layout: weights of variance gain / inputs, statistics near 0 and 1.

    2 keeps the activations of rectified networks up; 0.3 is what transformers start from, whose attention would else
    be so hard that rounding decides.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(shape: Any) -> Any:
        return torch.randn(shape, generator=generator)

    made: State = {}
    for name, tensor in layout.items():
        if not tensor.is_floating_point():
            made[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif name.endswith("running_var"):
            made[name] = 1 + 0.2 * normal(tensor.shape).abs()
        elif name.endswith(("pos_embed", "cls_token", "positional_embedding", "class_embedding")):
            made[name] = 0.5 * normal(tensor.shape)
        elif tensor.ndim >= 2:
            made[name] = normal(tensor.shape) * (gain / tensor[0].numel()) ** 0.5
        else:
            centre = 1.0 if name.endswith(("weight", "gamma")) else 0.0
            made[name] = centre + 0.1 * normal(tensor.shape)
    return made


def _trunk(constructor: str) -> State:
    import torch
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, constructor)(weights=None).features
    return {f"features.{name}": tensor for name, tensor in features.state_dict().items()}


def _inception() -> State:
    need("torch_fidelity")
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as module

    extractor = module.FeatureExtractorInceptionV3
    with (
        replaced(module, load_state_dict_from_url=lambda *args, **kwargs: {}),
        replaced(extractor, load_state_dict=lambda *args, **kwargs: None),
        torch.device("meta"),
    ):
        return dict(extractor("inception-v3-compat", ["2048"]).state_dict())


@contextlib.contextmanager
def narrow_inception() -> Iterator[Setting]:
    """Within the block torch-fidelity's InceptionV3 has an eighth of its channels and random weights of that width;
    its layers, their order and padding, and the resizing of images are the real ones. Gives the setting to use."""
    need("torch_fidelity")
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as module

    wide = module.BasicConv2d.__init__

    def narrow(self: Any, channels_in: int, channels_out: int, **kwargs: Any) -> None:
        wide(self, 3 if channels_in == 3 else channels_in // 8, channels_out // 8, **kwargs)

    path = _folder() / "narrow" / INCEPTION
    with replaced(module.BasicConv2d, __init__=narrow):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            torch.save(_random(_inception(), zlib.crc32(INCEPTION.encode()), 2.0), path)
        with _listed(path.parent, {INCEPTION: sha256(path)}) as setting:
            yield setting


NARROW = {"embed_dim": 24, "dim_mlp": 24, "num_heads": [4, 4]}
"""MANIQA with a 32nd of its width; its 12 blocks, patches, attention over channels and windows are the real ones."""


@contextlib.contextmanager
def narrow_maniqa() -> Iterator[Callable[..., Any]]:
    """Within the block pyiqa's MANIQA is built narrow, whoever builds it; gives its constructor."""
    need("pyiqa", "timm")
    import timm
    from pyiqa.archs import maniqa_arch

    create, plain = timm.create_model, maniqa_arch.MANIQA

    def small_backbone(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
        return create(name, **{**kwargs, "pretrained": False, "embed_dim": NARROW["embed_dim"], "num_heads": 2})

    def build(**kwargs: Any) -> Any:
        return plain(**{**kwargs, "pretrained": False, **NARROW}).eval()

    with replaced(timm, create_model=small_backbone), replaced(maniqa_arch, MANIQA=build):
        yield build


def _maniqa() -> State:
    import torch

    with narrow_maniqa() as build:
        state = build(scale=0.8).state_dict()
    return {f"module.{name}": torch.as_tensor(tensor) for name, tensor in state.items()}


def _dinov2() -> State:
    import torch

    from bench.metrics.dinov2 import DinoV2

    with torch.device("meta"):
        return dict(DinoV2(WIDTH, DEPTH).state_dict())


def _clip() -> State:
    """The image's part as torch-fidelity has it, and some of the text's, which the released file holds too."""
    need("torch_fidelity")
    import torch
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    with torch.device("meta"):
        found = dict(CLIPVisual(WIDTH // 2, 336, DEPTH, WIDTH, 14).state_dict())
        found["text_projection"] = torch.empty(WIDTH // 2, WIDTH // 2)
        found["transformer.resblocks.0.ln_1.weight"] = torch.empty(WIDTH // 2)
        found["ln_final.weight"] = torch.empty(WIDTH // 2)
        found["logit_scale"] = torch.empty(())
    return found


_LAYOUTS: dict[str, Callable[[], State]] = {
    ALEXNET: functools.partial(_trunk, "alexnet"),
    VGG16: functools.partial(_trunk, "vgg16"),
    INCEPTION: _inception,
    KONIQ: _maniqa,
    PIPAL: _maniqa,
    DINOV2: _dinov2,
    CLIP: _clip,
}
