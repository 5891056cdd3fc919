"""What a model lacks on this machine: packages, a guest's environment, files, and the commands that bring them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import weights
from bench.models.guests import checkout, environment
from bench.models.spec import ModelSpec


def missing(spec: ModelSpec, weights_dir: Path | None = None) -> list[str]:
    """What a model lacks here, a short text each with the size of files; empty where nothing is missing."""
    return [text for texts in lacks(spec, weights_dir).values() for text in texts]


def lacks(spec: ModelSpec, weights_dir: Path | None = None) -> dict[str, list[str]]:
    """What a model lacks here, by what it is: ``option``, ``package``, ``environment``, ``weights``.

    No file is hashed: one of the right name is taken for it.
    """
    files = [
        f"{entry.file} ({entry.size})"
        for entry in weights.of_model(spec.name, spec.weights).values()
        if not weights.places(entry, weights_dir)
    ]
    found = {
        "option": [f"the option {name}" for name in spec.needs_options],
        "package": lacking(spec.requires),
        "environment": _guest(spec),
        "weights": files,
    }
    return {kind: texts for kind, texts in found.items() if texts}


def _guest(spec: ModelSpec) -> list[str]:
    """What a model that runs in a guest lacks of it; a run looks closer."""
    asked = spec.environment
    if asked is None:
        return []
    absent = [] if environment.find(asked) else [f"its environment ({asked.requirements})"]
    if asked.checkout and not checkout.place(spec.name, spec.commit).is_dir():
        absent.append(f"a checkout of {spec.upstream} at {spec.commit[:12]}")
    return absent


def lacking(requires: Sequence[str]) -> list[str]:
    """Which of these requirements (``opensr-model==1.0.8``) are not installed here, or in another version."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    found = []
    for text in requires:
        requirement = Requirement(text)
        try:
            here = version(requirement.name)
        except PackageNotFoundError:
            found.append(f"the package {text} is not installed")
            continue
        if not requirement.specifier.contains(here, prereleases=True):
            found.append(f"the package {requirement.name} is here in version {here}, expected {text}")
    return found


def install(spec: ModelSpec) -> str:
    """The command that brings the packages that a spec requires."""
    return f"pip install 'rfbench[{spec.extra}]'" if spec.extra else f"pip install {' '.join(spec.requires)}"


def next_step(spec: ModelSpec) -> str:
    """The command that brings what is missing: packages first, since the files are of no use without them."""
    if lacking(spec.requires):
        return install(spec)
    if _guest(spec):
        return f"rfbench envs build {spec.name}"
    return (
        f"rfbench run --model {spec.name}:{spec.needs_options[0]}=..."
        if spec.needs_options
        else (f"rfbench weights fetch {spec.name}")
    )
