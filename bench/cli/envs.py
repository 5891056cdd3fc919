"""``rfbench envs``: the environments and checkouts of models that run in a guest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import complete
from bench.cli.help import Group
from bench.cli.listing import show, wide_option

if TYPE_CHECKING:
    from bench.models.spec import ModelSpec

_EPILOG = """\b
Examples:
  rfbench envs ls
  rfbench envs build samsr
  rfbench envs build samsr --device cpu    # torch without CUDA, some GB less
  rfbench envs build samsr --checkout /media/stick/SAMSR   # without network
  rfbench envs rm samsr
  rfbench envs rm --unused

All lie below $RFBENCH_ENVS, else ~/.cache/rfbench/envs.
"""


@click.group("envs", cls=Group, epilog=_EPILOG)
def command() -> None:
    """List, build and remove the environments of models that cannot live in rfbench's process.

    Such a model has its own packages, made by uv from a requirements file of fixed versions, and perhaps a checkout of
    its authors' code at a fixed commit. Two models with the same file share one environment.
    """


@command.command("ls", epilog=_EPILOG)
@wide_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, with packages and paths.")
def ls(wide: bool, as_json: bool) -> None:
    """List who needs an environment, and what of it is here.

    Environments that no registered model asks for come last.
    """
    from bench.models.guests import environment
    from bench.weights import megabytes

    here = {b.key: b for b in environment.built()}
    rows = [row for spec in _guests().values() for row in _rows(spec, here)]
    used = {row["environment"] for row in rows}
    rows += [
        {"model": None, "environment": b.key, "state": "unused", "python": b.python, "bytes": b.bytes,
         "packages": list(b.packages), "requirements": b.requirements, "path": str(b.path), "checkout": None}
        for b in here.values() if b.key not in used
    ]  # fmt: skip
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    headings = ("model", "environment", "state", "python", "size", "checkout", "requirements")
    shown = [
        (r["model"] or "-", r["environment"], r["state"], r["python"],
         megabytes(r["bytes"]) if r["bytes"] is not None else "-", r["checkout"] or "-", r["requirements"])
        for r in rows
    ]  # fmt: skip
    show(headings, shown, ("model", "environment", "state", "size", "checkout"), wide=wide)
    missing = [
        r["model"] for r in rows if r["model"] and (r["state"] == "missing" or "missing" in (r["checkout"] or ""))
    ]
    if missing:
        print(f"next: rfbench envs build {' '.join(missing)}", file=sys.stderr)


def _rows(spec: ModelSpec, here: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each variant of a model's environment that is here; where none is, one that says so."""
    from bench.core.errors import RfbenchError, one_line
    from bench.models.guests import environment

    asked = spec.environment
    assert asked is not None
    try:
        keys = {variant: asked.key(variant) for variant in environment.VARIANTS}
    except RfbenchError as error:
        keys = {"": f"broken: {one_line(error, 80)}"}
    found = {variant: key for variant, key in keys.items() if key in here} or {"": keys[""]}
    return [_row(spec, variant, key, here.get(key)) for variant, key in found.items()]


def _row(spec: ModelSpec, variant: str, key: str, found: Any) -> dict[str, Any]:
    from bench.core.errors import RfbenchError
    from bench.models.guests import checkout

    asked = spec.environment
    assert asked is not None
    state = None
    if asked.checkout:
        try:
            checkout.need(spec.name, spec.commit)
            state = spec.commit[:12]
        except RfbenchError:
            is_there = checkout.place(spec.name, spec.commit).is_dir()
            state = f"{spec.commit[:12]} {'wrong' if is_there else 'missing'}"
    return {
        "model": spec.name,
        "environment": key,
        "state": ("built for cpu" if variant else "built") if found else "missing",
        "python": found.python if found else asked.python_version,
        "bytes": found.bytes if found else None,
        "packages": list(found.packages) if found else None,
        "requirements": asked.requirements,
        "path": str(found.path) if found else None,
        "checkout": state,
    }


@command.command("build", epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="MODEL...", shell_complete=complete.model)
@click.option("--all", "every", is_flag=True, help="Of every registered model that needs one.")
@click.option(
    "--checkout",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A clone of upstream that you have, for a machine without network; one MODEL only.",
)
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    show_default=True,
    help="Where the model will run: cuda is the requirements as they are, which processors take too; cpu has torch's "
    "build for processors, from PyTorch's own index.",
)
def build(names: tuple[str, ...], every: bool, source: Path | None, device: str) -> int:
    """Make a model's environment, and fetch its upstream.

    The checkout is at the commit that the model's spec names. What is here already stays. A command that was
    interrupted may be repeated. Exit code 2 if one could not be made; the others are there then.
    """
    from bench.core.errors import RfbenchError, one_line

    specs = _chosen(names, every)
    if source is not None:
        if len(specs) != 1:
            raise RfbenchError("--checkout is one model's clone; name that model alone")
        if not specs[0].environment or not specs[0].environment.checkout:
            raise RfbenchError(f"--checkout: {specs[0].name} needs no checkout; leave the option out")
    failed = 0
    for spec in specs:
        try:
            _build(spec, source, device)
        except RfbenchError as error:
            if len(specs) == 1:
                raise
            failed += 1
            print(f"error: {one_line(error, 600)}", file=sys.stderr)
    return 2 if failed else 0


def _build(spec: ModelSpec, source: Path | None, device: str) -> None:
    from bench.core.errors import one_line
    from bench.core.licences import restriction
    from bench.models.guests import checkout, environment
    from bench.weights import megabytes

    asked = spec.environment
    assert asked is not None
    restricted = restriction(spec.licence)
    if restricted:
        print(f"note: {spec.name}: {one_line(spec.licence, 200)}: {restricted}", file=sys.stderr)
    if asked.checkout:
        folder, is_new = checkout.make(spec.name, spec.upstream, spec.commit, source)
        text = f"at {spec.commit[:12]}, {megabytes(environment.folder_bytes(folder))} in {folder}"
        click.echo(f"{spec.name}: checkout {'made' if is_new else 'is here'}, {text}")
    variant = environment.CPU if device == "cpu" else ""
    if asked.key(variant) not in {b.key for b in environment.built()}:
        lines = asked.requirements_text(variant).splitlines()
        count = sum(1 for line in lines if line.strip() and line.lstrip()[0] != "#")
        print(f"{spec.name}: uv installs {count} requirements; this may take minutes", file=sys.stderr)
    built, is_new = environment.build(spec.name, asked, variant)
    text = f"Python {built.python}, {len(built.packages)} packages, {megabytes(built.bytes)} in {built.path}"
    click.echo(f"{spec.name}: environment {'made' if is_new else 'is here'}, {text}")


@command.command("rm", epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[MODEL|ENVIRONMENT]...", shell_complete=complete.model)
@click.option("--unused", is_flag=True, help="Every environment that no registered model asks for.")
def rm(names: tuple[str, ...], unused: bool) -> None:
    """Remove environments and the models' checkouts.

    An environment that another registered model shares stays.
    """
    from bench.core.errors import RfbenchError, unknown
    from bench.models.guests import checkout, environment
    from bench.weights import megabytes

    if not names and not unused:
        raise RfbenchError("nothing is named; give models, environments, or --unused")
    guests, here = _guests(), {b.key: b for b in environment.built()}
    keys = {name: _keys(spec) for name, spec in guests.items()}
    for name in names:
        if name not in guests and name not in here:
            hint = "'rfbench envs ls' lists them"
            raise unknown("model with an environment, or environment,", name, [*guests, *here], hint=hint)
    used = {key for of_model in keys.values() for key in of_model}
    gone = [key for key in here if key in names or (unused and key not in used)]
    for name in (n for n in names if n in guests):
        folder = checkout.place(name, guests[name].commit)
        if folder.is_dir():
            environment.remove(folder)
            click.echo(f"{name}: checkout removed")
        elif not here.keys() & keys[name]:
            print(f"{name}: nothing of it is here", file=sys.stderr)
        for key in (k for k in keys[name] if k in here):
            sharing = [other for other, others in keys.items() if key in others and other not in names]
            if sharing:
                click.echo(f"{name}: environment {key} stays, since {', '.join(sharing)} needs it")
            else:
                gone.append(key)
    for key in dict.fromkeys(gone):
        environment.remove(here[key].path)
        click.echo(f"environment {key} removed, {megabytes(here[key].bytes)}")


def _keys(spec: ModelSpec) -> list[str]:
    """The addresses of both variants."""
    from bench.core.errors import RfbenchError
    from bench.models.guests import environment

    assert spec.environment is not None
    try:
        return [spec.environment.key(variant) for variant in environment.VARIANTS]
    except RfbenchError:  # 'rfbench envs ls' says what is broken
        return []


def _guests() -> dict[str, ModelSpec]:
    """The registered models that ask for an environment, by name."""
    from bench.core import registry
    from bench.core.errors import RfbenchError

    found = {}
    for name in registry.names("models"):
        try:
            spec = registry.load("models", name)
        except RfbenchError:
            continue  # 'rfbench ls models' says what is broken
        if getattr(spec, "environment", None) is not None:
            found[name] = spec
    return found


def _chosen(names: tuple[str, ...], every: bool) -> list[ModelSpec]:
    from bench.core import registry
    from bench.core.errors import RfbenchError, unknown

    guests = _guests()
    if every == bool(names):
        raise RfbenchError("name models, or give --all; 'rfbench envs ls' lists those that need an environment")
    for name in names:
        if name in guests:
            continue
        if name in registry.points("models"):
            raise RfbenchError(f"the model {name} runs in rfbench's own process and needs no environment")
        raise unknown("model with an environment", name, guests, hint="'rfbench envs ls' lists them")
    return [guests[n] for n in dict.fromkeys(names)] if names else list(guests.values())
