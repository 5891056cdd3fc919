"""Captions: the word table, SD3's encoders against diffusers' own pipeline, and the store of embeddings."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from rareflow.base import text_identity
from rareflow.errors import RareflowError
from rareflow.text import CaptionStore, Embedding, Sd3Text, WordTable, sd3_encoder, words
from tests.sd3_folder import make_sd3_folder

CAPTION = "A pale thaw slump in green tundra, above the dark lake."
HOSTILE = (
    "", "the of a", "x" * 10_000, "lake " * 10_000, "слой льда 冰川湖 हिन्दी", "\x00\x07\ud800\U0001f9ca", "\u202e-–-",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd3_folder(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def encoders(folder: Path) -> Iterator[Sd3Text]:
    with Sd3Text.open(folder) as found:
        yield found


# ---- the word table


def test_words_of_any_script_once_each_and_without_stop_words() -> None:
    assert words(CAPTION) == ["pale", "thaw", "slump", "green", "tundra", "dark", "lake"]
    assert words("Ice-wedge ICE-WEDGE ice\u2011wedge, ice") == ["ice-wedge", "ice"]
    assert words("冰川湖 हिन्दी Ледник") == ["冰", "川", "湖", "हिन्दी", "ледник"]
    assert words("the of a -- !") == words("\ud800\x00") == []


def test_rows_of_words_are_the_same_in_every_process() -> None:
    # Written down: with other numbers, a stored checkpoint would read other words.
    assert WordTable(positions=4).ids(["thaw slump 冰", ""]).tolist() == [[402, 103, 166, 0], [0] * 4]


def test_words_of_scene_captions_share_no_row() -> None:
    from bench.data.scenes.captions import describe
    from bench.data.scenes.plan import draw_plan
    from bench.data.scenes.slumps import Slump

    rng = np.random.default_rng(0)
    kinds = ("bowl-shaped", "broad", "horseshoe-shaped", "tongue-shaped")
    captions = set()
    for _ in range(2000):
        slumps = [
            Slump(str(rng.choice(kinds)), *rng.uniform(0, 200, 2), rng.uniform(5, 45), *[0.0] * 4, rng.normal(), old)
            for old in rng.random(rng.integers(0, 5)) < 0.2
        ]
        captions.add(describe(draw_plan(rng), slumps, (200, 200)))
    vocabulary = sorted({word for caption in captions for word in words(caption)})
    rows = WordTable(positions=1).ids(vocabulary)
    assert len(vocabulary) > 40
    assert len(rows.unique()) == len(vocabulary)


def test_pooled_is_the_mean_of_word_rows_and_of_padding_without_words() -> None:
    torch.manual_seed(0)
    table = WordTable(buckets=32, positions=5, width=6)
    captions = ["thaw slump lake", "", "one two three four five six seven"]
    ids = table.ids(captions)
    tokens, pooled = table(ids)
    rows, places = (x.detach().double().numpy() for x in (table.rows, table.places))
    for b, caption in enumerate(captions):
        kept = [int(i) for i in ids[b] if i]
        assert len(kept) == min(len(words(caption)), 5)
        expected = np.mean([rows[i] for i in kept], 0) if kept else rows[0]
        np.testing.assert_allclose(pooled[b].detach().numpy(), expected, atol=1e-6)
        padded = np.stack([rows[i] for i in kept + [0] * (5 - len(kept))])
        np.testing.assert_allclose(tokens[b].detach().numpy(), padded + places, atol=1e-6)


def test_every_row_that_is_read_learns_padding_too() -> None:
    table = WordTable(buckets=32, positions=4, width=6)
    ids = table.ids(["thaw slump"])
    table(ids)[0].square().sum().backward()
    assert table.rows.grad is not None
    assert {int(i) for i in table.rows.grad.abs().sum(1).nonzero()} == {0, *ids[0].tolist()}


@pytest.mark.parametrize("caption", HOSTILE, ids=range(len(HOSTILE)))
def test_any_caption_is_accepted(caption: str, encoders: Sd3Text) -> None:
    table = WordTable()
    ids = table.ids([caption])
    tokens, pooled = table(ids)
    assert ids.shape == (1, 16) and ids.min() >= 0 and ids.max() <= 512
    assert tokens.shape == (1, 16, 64) and pooled.isfinite().all()
    [(tokens, pooled)] = encoders.encode([caption], 8)
    assert tokens.shape == (85, 64) and tokens.isfinite().all() and pooled.isfinite().all()


# ---- SD3's encoders


@pytest.mark.parametrize("t5", [True, False], ids=["t5", "no-t5"])
def test_embeddings_equal_those_of_the_stock_pipeline(t5: bool, folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    where = folder if t5 else make_sd3_folder(tmp_path / "no-t5", t5=False)
    without = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(where, local_files_only=True, **without).to(torch.float32)
    captions = [CAPTION, "", "слой льда", "lake " * 2000]
    encode_prompt = torch.no_grad()(pipeline.encode_prompt)  # as in the pipeline's own call
    with Sd3Text.open(where) as encoders:
        ours = list(encoders.encode(captions, 24))
    for caption, (tokens, pooled) in zip(captions, ours, strict=True):
        theirs = encode_prompt(
            caption, None, None, do_classifier_free_guidance=False, max_sequence_length=24, device="cpu"
        )
        assert tokens.shape == (77 + 24, 64) and pooled.shape == (64,)
        assert torch.equal(tokens, theirs[0][0, : 77 + 24])  # older versions give 77 rows of zeros without T5
        assert torch.equal(pooled, theirs[2][0])
    assert not torch.equal(ours[0][0], ours[1][0])
    assert bool(ours[0][0][77:].any()) == t5


def test_closed_encoders_are_freed(folder: Path) -> None:
    encoders = Sd3Text.open(folder, dtype=torch.float16)
    assert next(encoders.encode([CAPTION], 4))[0].dtype == torch.float16
    alive = [weakref.ref(encoder) for _, encoder in encoders._towers or []]
    assert len(alive) == 3
    encoders.close()
    encoders.close()
    assert all(reference() is None for reference in alive)
    with pytest.raises(RuntimeError, match="closed"):
        next(encoders.encode([CAPTION]))


def test_encoders_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "sd3"
    shutil.copytree(folder, other)
    config = json.loads((other / "transformer/config.json").read_text())
    (other / "transformer/config.json").write_text(json.dumps(config | {"joint_attention_dim": 128}))
    with pytest.raises(RareflowError, match=r"^[^\n]*other widths[^\n]*joint_attention_dim 128[^\n]*$"):
        Sd3Text.open(other)
    vocabulary = json.loads((other / "tokenizer_2/vocab.json").read_text())
    (other / "tokenizer_2/vocab.json").write_text(json.dumps(vocabulary | {"extra": len(vocabulary)}))
    with pytest.raises(RareflowError, match=r"^[^\n]*text_encoder_2: found 542 rows for the 543 words[^\n]*$"):
        Sd3Text.open(other)
    (other / "tokenizer/vocab.json").write_text("{")
    with pytest.raises(RareflowError, match=r"^[^\n]*/tokenizer: no CLIPTokenizer[^\n]*get the folder again$"):
        Sd3Text.open(other)


# ---- the store


class Counting:
    """An encoder that gives a caption's length and remembers what it was asked for."""

    def __init__(self, fail_after: int = 99, value: float = 1 / 3) -> None:
        self.calls: list[list[str]] = []
        self.fail_after, self.value = fail_after, value

    def __call__(self, captions: list[str]) -> Iterator[Embedding]:
        self.calls.append(captions)
        for i, caption in enumerate(captions):
            if i == self.fail_after:
                raise KeyboardInterrupt
            yield torch.full((3, 4), len(caption) + self.value), torch.full((2,), float(len(caption)))


def test_store_encodes_each_caption_once_and_gives_the_same_later(tmp_path: Path) -> None:
    encode = Counting()
    first = CaptionStore(tmp_path / "s", "id").get(["a", "bb", "a", "\ud800"], encode)
    again = CaptionStore(tmp_path / "s", "id").get(["bb", "a", "a", "\ud800"], encode)
    assert encode.calls == [["a", "bb", "\ud800"]]
    assert first[0].shape == (4, 3, 4) and first[1].shape == (4, 2) and first[0].dtype == torch.float16
    assert torch.equal(first[0][[1, 0, 2, 3]], again[0]) and torch.equal(first[1][[1, 0, 2, 3]], again[1])
    for other in (CaptionStore(tmp_path / "s", "id2"), CaptionStore(tmp_path / "s", "id", max_tokens=77)):
        other.fill(["a"], encode)
    assert encode.calls[1:] == [["a"], ["a"]]


def test_store_opens_the_encoders_only_for_what_is_missing(folder: Path, encoders: Sd3Text, tmp_path: Path) -> None:
    store = CaptionStore(tmp_path / "s", text_identity(folder), 16)
    tokens, pooled = store.get([CAPTION, ""], sd3_encoder(folder, max_t5_tokens=16))
    for i, (t, p) in enumerate(encoders.encode([CAPTION, ""], 16)):
        assert torch.equal(tokens[i], t.half()) and torch.equal(pooled[i], p.half())
    absent = sd3_encoder(tmp_path / "absent")
    assert torch.equal(store.get([""], absent)[0][0], tokens[1])
    with pytest.raises(RareflowError, match=r"model_index\.json"):
        store.get(["new"], absent)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "other"])
def test_a_damaged_file_is_computed_again(damage: str, tmp_path: Path) -> None:
    store, encode = CaptionStore(tmp_path, "id"), Counting()
    store.fill(["a"], encode)
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a flipped bit in the numbers, which the format itself does not notice
    path.write_bytes({"cut": content[:-5], "empty": b"", "flip": content, "other": b"\x02" + b"\0" * 7 + b"{}"}[damage])
    assert store.get(["a"], encode)[0][0, 0, 0].item() == np.float16(4 / 3)
    assert len(encode.calls) == 2
    store.fill(["a"], encode)
    assert len(encode.calls) == 2


def test_a_stopped_fill_keeps_what_it_had(tmp_path: Path) -> None:
    store = CaptionStore(tmp_path, "id")
    with pytest.raises(KeyboardInterrupt):
        store.fill(["a", "bb", "ccc"], Counting(fail_after=2))
    encode = Counting()
    store.fill(["a", "bb", "ccc"], encode)
    assert encode.calls == [["ccc"]]


def test_many_writers_and_readers_at_once(tmp_path: Path) -> None:
    captions = ["x" * n for n in range(12)]

    def work(i: int) -> torch.Tensor:
        return CaptionStore(tmp_path, "id").get(captions[i % 3 :] + captions[: i % 3], Counting())[1][:, 0]

    with ThreadPoolExecutor(8) as pool:
        for i, lengths in enumerate(pool.map(work, range(16))):
            assert lengths.tolist() == [(k + i % 3) % 12 for k in range(12)]
    assert len(list(tmp_path.iterdir())) == 12, "no temporary files stay behind"


def test_what_cannot_be_kept_is_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (float("nan"), 1e6):
        with pytest.raises(RareflowError, match=r"^caption 'a': [^\n]*float16[^\n]*$"):
            CaptionStore(tmp_path / "s", "id").fill(["a"], Counting(value=value))
    (tmp_path / "file").touch()
    with pytest.raises(RareflowError, match=r"^[^\n]*cannot keep captions[^\n]*$"):
        CaptionStore(tmp_path / "file", "id").fill(["a"], Counting())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RareflowError, match="No space left"):
        CaptionStore(tmp_path / "s", "id").fill(["a"], Counting())
    assert not list((tmp_path / "s").iterdir())
