"""Who sees what: a balanced plan, by one seed and nothing else.

An *item* is an image with a system's answer to it. Every reviewer gets the common items and a block of others; blocks
are filled with the items that were seen least (then with images that the reviewer has least often, then with systems
that the reviewer has least often), so numbers of ratings differ by at most one. Sides are balanced within each reviewer
and kind of trial (they differ by at most one), and over reviewers within each item as far as that leaves it free. An
image does not follow itself where the order can help it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.errors import RfbenchError

HR, LR, PIXELS = "@hr", "@lr", "@lr pixels"
"""What stands for an image's sides among systems' labels; ``PIXELS`` is the LR again, as a bad system's answer."""
Item = tuple[str, str]
"""An image's id and a system's label."""


@dataclass(frozen=True)
class Comparison:
    """Two panels of an image, left and right: systems' labels, ``HR``, ``LR``, ``PIXELS``. ``repeat_of`` is an index
    into the sitting, -1 for none."""

    kind: str
    image: str
    left: str
    right: str
    purpose: str
    repeat_of: int = -1


@dataclass(frozen=True)
class Sitting:
    """One reviewer's trials: images whose captions are judged, then comparisons, both in their order."""

    captions: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Sizes:
    """How large a study is.

    Attributes
    ----------
    reviewers, each : how many people, and how many items each of them judges.
    common : how many of these all share, for agreement.
    repeats, catches : trials shown again with sides swapped, and trials whose answer is known (HR against itself, and
        against the LR's pixels).
    between : comparisons of two systems with each other, of each reviewer; none with one system.
    ratings : how many ratings each item gets at the least; the plan is refused if it does not reach them.
    """

    reviewers: int
    each: int = 30
    common: int = 10
    repeats: int = 3
    catches: int = 2
    between: int = 10
    ratings: int = 1


def plan_sittings(images: Sequence[str], systems: Sequence[str], design: str, sizes: Sizes, seed: int) -> list[Sitting]:
    """The sittings of all reviewers.

    Raises RfbenchError where the sizes cannot be met, with the smallest that could.
    """
    items = [(image, system) for system in systems for image in images]
    each, common = min(sizes.each, len(items)), min(sizes.common, sizes.each, len(items))
    _check(sizes, len(items), each, common)
    rng = _generator(seed, "common")
    shared = _block(items, common, Counter(), rng)
    seen: Counter[Item] = Counter()
    blocks = []
    for reviewer in range(sizes.reviewers):
        rng = _generator(seed, "block", reviewer)
        rest = _block([i for i in items if i not in shared], each - common, seen, rng, begun=shared)
        seen.update([*shared, *rest])
        blocks.append([*shared, *rest])
    least = min(seen[item] for item in items)
    if least < sizes.ratings:
        others, spots = len(items) - common, each - common
        needed = -(-sizes.ratings * others // max(spots, 1))
        raise RfbenchError(
            f"{sizes.reviewers} reviewers with {each} samples each give some of the {len(items)} samples {least} "
            f"ratings, --ratings asks for {sizes.ratings}; that takes {needed} reviewers, or more samples each"
        )
    left: Counter[tuple[str, str, str, str]] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    return [
        _sitting(block, set(shared), systems, design, sizes, _generator(seed, "sitting", r), left, pairs)
        for r, block in enumerate(blocks)
    ]


def _check(sizes: Sizes, items: int, each: int, common: int) -> None:
    for name, least in (("reviewers", 1), ("each", 1), ("common", 0), ("repeats", 0), ("catches", 0), ("between", 0),
                        ("ratings", 0)):  # fmt: skip
        if getattr(sizes, name) < least:
            raise RfbenchError(f"--{name}: found {getattr(sizes, name)}, expected {least} or more")
    if not items:
        raise RfbenchError("the runs have no image in common, so there is nothing to show")
    if sizes.repeats > each:
        raise RfbenchError(f"--repeats: found {sizes.repeats}, expected at most the {each} samples of a reviewer")
    if common > each:
        raise RfbenchError(f"--common: found {common}, expected at most the {each} samples of a reviewer")


def _block(
    items: Sequence[Item], count: int, seen: Counter[Item], rng: np.random.Generator, begun: Sequence[Item] = ()
) -> list[Item]:
    """``count`` of the items: the least seen, of them those whose image and system are rarest in the block."""
    images, systems = Counter(i for i, _ in begun), Counter(s for _, s in begun)
    chance = dict(zip(items, rng.permutation(len(items)), strict=True))
    left, block = set(items), []
    for _ in range(count):
        item = min(left, key=lambda i: (seen[i], images[i[0]], systems[i[1]], chance[i]))
        left.remove(item)
        block.append(item)
        images[item[0]] += 1
        systems[item[1]] += 1
    return block


def _sitting(
    block: Sequence[Item], shared: set[Item], systems: Sequence[str], design: str, sizes: Sizes,
    rng: np.random.Generator, left: Counter[tuple[str, str, str, str]], pairs: Counter[tuple[str, str]],
) -> Sitting:  # fmt: skip
    images = list(dict.fromkeys(image for image, _ in block))
    captions = tuple(images[i] for i in rng.permutation(len(images)))
    drawn: list[tuple[str, str, str, str, str]] = []  # kind, image, first, second, purpose
    for image, system in block:
        purpose = "common" if (image, system) in shared else "own"
        if design == "paper":
            drawn.append(("paper", image, LR, system, purpose))
        else:
            drawn += [("clarity", image, LR, system, purpose), ("parity", image, HR, system, purpose)]
    if design == "blind" and len(systems) > 1:
        every = [(a, b) for i, a in enumerate(systems) for b in systems[i + 1 :]]
        for image in [images[i] for i in rng.permutation(len(images))][: sizes.between]:
            a, b = min(every, key=lambda p: (pairs[p], rng.random()))
            pairs[a, b] += 1
            drawn.append(("between", image, a, b, "own"))
    for n in range(sizes.catches):
        image = images[int(rng.integers(len(images)))]
        other, purpose = (HR, "same") if n % 2 == 0 else (PIXELS, "worse")
        drawn.append(("paper" if design == "paper" else "parity", image, HR, other, purpose))
    whole = _with_sides(drawn, rng, left)
    order = _order(whole, rng)
    # A repeat comes in the second half, of a trial of the first, with its sides swapped.
    half = max(1, len(order) // 2)
    again = [i for i in range(half) if order[i].purpose in ("own", "common")]
    chosen = sorted(int(i) for i in rng.permutation(again)[: sizes.repeats])
    for place, first in enumerate(chosen):
        one = order[first]
        at = half + 1 + (len(order) - half) * (place + 1) // (len(chosen) + 1)
        order.insert(at, Comparison(one.kind, one.image, one.right, one.left, "repeat", first))
    return Sitting(captions, tuple(order), tuple(block))


def _with_sides(
    drawn: Sequence[tuple[str, str, str, str, str]], rng: np.random.Generator, left: Counter[tuple[str, str, str, str]]
) -> list[Comparison]:
    """The comparisons with their sides: of each kind half with the second on the left, and of those the ones that have
    been on the right most often so far."""
    made: list[Comparison] = []
    for kind in dict.fromkeys(d[0] for d in drawn):
        of_kind = [d for d in drawn if d[0] == kind]
        chance = rng.permutation(len(of_kind))
        order = sorted(range(len(of_kind)), key=lambda i: (left[of_kind[i][:4]], chance[i]))
        half = (len(of_kind) + int(rng.integers(2))) // 2
        for rank, i in enumerate(order):
            _, image, first, second, purpose = of_kind[i]
            swapped = rank < half
            left[of_kind[i][:4]] += 1 if swapped else -1
            made.append(Comparison(kind, image, *((second, first) if swapped else (first, second)), purpose))
    return made


def _order(trials: Sequence[Comparison], rng: np.random.Generator) -> list[Comparison]:
    """A random order in which an image seldom follows itself: always the next of those whose image is another one."""
    waiting = [trials[i] for i in rng.permutation(len(trials))]
    order: list[Comparison] = []
    while waiting:
        last = order[-1].image if order else None
        # The image with most trials left goes first where it could not be placed otherwise.
        counts = Counter(t.image for t in waiting)
        urgent = max(counts.values())
        fits = [t for t in waiting if t.image != last]
        pressing = [t for t in fits if counts[t.image] == urgent and 2 * urgent > len(waiting)]
        chosen = (pressing or fits or waiting)[0]
        waiting.remove(chosen)
        order.append(chosen)
    return order


def _generator(seed: int, *names: object) -> np.random.Generator:
    text = "\x1f".join(map(str, ("rfbench study", seed, *names)))
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key)))
