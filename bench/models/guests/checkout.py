"""Checkouts of upstream's code at a pinned commit, which rfbench does not ship: the user fetches them, rfbench checks.

One is at ``checkouts/NAME-COMMIT`` below ``environment.root()``, made from upstream's address, or from a clone that the
user has (``rfbench envs build NAME --checkout DIR``), and looked at before every use: a changed file or an added module
is another model.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.core.files import TEMPORARY, safe_name
from bench.models.guests import environment

_SHORT = 12


def place(name: str, commit: str) -> Path:
    """Where the checkout of the model ``name`` lies, or would."""
    return environment.root() / "checkouts" / f"{safe_name(name)}-{commit[:_SHORT]}"


def need(name: str, commit: str) -> Path:
    """The checkout, just verified.

    Raises
    ------
    Unavailable
        If it is missing, at another commit, or changed; with what to do.
    """
    folder = place(name, commit)
    again = f"'rfbench envs rm {name}' and 'rfbench envs build {name}' make it anew"
    if not folder.is_dir():
        raise Unavailable(
            f"checkout missing: {name} at commit {commit[:_SHORT]}; 'rfbench envs build {name}' fetches it, with "
            "--checkout DIR from a clone that you have"
        )
    found = _git(folder, "rev-parse", "HEAD")
    if found != commit:
        raise Unavailable(
            f"checkout wrong: {name} is at commit {one_line(found or 'none', 40)[:_SHORT]}, expected "
            f"{commit[:_SHORT]}; {again}"
        )
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if changed is None or changed:
        what = one_line((changed or "it cannot be looked at").splitlines()[0], 80)
        raise Unavailable(f"checkout wrong: files of {name} were changed ({what}); {again}")
    added = _git(folder, "ls-files", "--others", "--", "*.py", "*.so")  # it comes first on the guest's path
    if added is None or added:
        what = one_line((added or "it cannot be looked at").splitlines()[0], 80)
        raise Unavailable(f"checkout wrong: modules were added to {name} ({what}); {again}")
    return folder


def make(name: str, upstream: str, commit: str, source: Path | None = None) -> tuple[Path, bool]:
    """Fetch the checkout unless it is there; returns it, and whether it was made now.

    ``source`` is a clone that holds the commit; its working tree and branch do not matter.

    Raises
    ------
    RfbenchError
        Where git is missing, upstream cannot be reached or ``source`` does not hold the commit; in one line.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or not upstream:
        raise RfbenchError(f"model {name}: its spec needs upstream and a whole commit for a checkout; correct the spec")
    folder = place(name, commit)
    if shutil.which("git") is None:
        raise RfbenchError("git fetches the authors' code and is not installed; install git")
    if source is not None and (not source.is_dir() or _git(source, "rev-parse", "--git-dir") is None):
        raise RfbenchError(
            f"--checkout: {source} is no git clone, expected one of {one_line(upstream, 120)}: 'git clone' it where "
            "there is a network and bring the folder here"
        )
    if source is not None and _git(source, "cat-file", "-t", commit) != "commit":
        head = _git(source, "rev-parse", "HEAD") or "none"
        raise RfbenchError(
            f"--checkout: {source} does not hold the commit {commit[:_SHORT]} that rfbench runs (it is at "
            f"{one_line(head, 40)[:_SHORT]}); fetch it there, with all of its history"
        )
    with environment.lock(folder.name):
        environment.sweep(folder.parent, folder.name)
        if folder.exists():
            try:
                return need(name, commit), False
            except Unavailable:
                environment.remove(folder)
        part = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY}")
        try:
            part.mkdir(parents=True)
            where = str(source.resolve()) if source is not None else upstream
            _run(part, "init", "--quiet", name=name, where=where)
            _run(part, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", where, commit, name=name, where=where)
            _run(part, "checkout", "--quiet", "--detach", commit, name=name, where=where)
            part.replace(folder)
        except OSError as error:
            raise RfbenchError(f"cannot write {folder}: {error.strerror or one_line(error)}; free space") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return need(name, commit), True


def _words(folder: Path, words: tuple[str, ...]) -> list[str]:
    # No hook, filter or prompt of the user's configuration has a part in this.
    return ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-C", str(folder), *words]


def _environ() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}


def _git(folder: Path, *words: str) -> str | None:
    """What git says, or None where it fails."""
    try:
        done = subprocess.run(_words(folder, words), capture_output=True, text=True, errors="replace", check=False,
                              env=_environ())  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _run(folder: Path, *words: str, name: str, where: str) -> None:
    done = subprocess.run(_words(folder, words), capture_output=True, text=True, errors="replace", check=False,
                          env=_environ(), stdin=subprocess.DEVNULL)  # fmt: skip
    if done.returncode != 0:
        raise RfbenchError(
            f"cannot fetch the checkout of {name} from {one_line(where, 120)}: git: {one_line(done.stderr, 200)}; "
            f"without network bring a clone and give it: rfbench envs build {name} --checkout DIR"
        )
