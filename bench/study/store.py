"""What reviewers said: one SQLite file, append-only, one commit an answer.

A row is an *event* of a reviewer: ``profile``, ``answer``, ``incident`` (something that should not happen: a forged
trial, panels shown in another order), ``forgotten``. Nothing is overwritten: a correction is a further answer to the
same trial, and the last counts. What the browser sends twice (a lost connection, a double click) has the same id of
submission and is stored once. An answer says how many the browser knew of before, so that of two tabs one is told.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL,
  reviewer TEXT NOT NULL,
  kind TEXT NOT NULL,
  trial TEXT NOT NULL DEFAULT '',
  submission TEXT NOT NULL DEFAULT '',
  body TEXT NOT NULL
);
CREATE UNIQUE INDEX once ON events (reviewer, submission) WHERE submission <> '';
CREATE INDEX of_reviewer ON events (reviewer, kind, trial);
CREATE TRIGGER nothing_is_overwritten BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'answers are append-only'); END;
"""


class Stale(Exception):
    """The browser did not know of an answer that is there: another tab was faster."""


@dataclass(frozen=True)
class Event:
    """A row. ``body`` is what was sent, ``at`` the server's time in UTC."""

    id: int
    at: str
    reviewer: str
    kind: str
    trial: str
    body: Mapping[str, Any]


def make(path: Path, plan_sha256: str) -> None:
    """An empty file of answers for one plan, readable by its owner alone."""
    path.touch(mode=0o600, exist_ok=False)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
        db.execute("INSERT INTO meta VALUES ('plan_sha256', ?)", (plan_sha256,))


class Store:
    """Reads and writes a study's answers. Each call opens the file anew, so that threads and processes may share it."""

    def __init__(self, path: Path, plan_sha256: str) -> None:
        self._path = path
        with self._open() as db:
            found = db.execute("SELECT value FROM meta WHERE key = 'plan_sha256'").fetchone()
        if found is None or found[0] != plan_sha256:
            raise RfbenchError(f"{path} has answers to another plan than plan.json beside it; restore the plan")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self._path.is_file():  # sqlite would make an empty one
            raise RfbenchError(f"{self._path} is missing; restore it from a backup")
        try:
            db = sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
            with contextlib.closing(db):
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON")
                yield db
        except sqlite3.DatabaseError as error:
            raise RfbenchError(
                f"{self._path}: {one_line(error, 120)}; restore it from a backup, or free the disk"
            ) from None

    def add(
        self, at: str, reviewer: str, kind: str, body: Mapping[str, Any], *, trial: str = "", submission: str = "",
        known: int | None = None,
    ) -> bool:  # fmt: skip
        """Append an event; returns whether it is new (a submission that is there is not stored again).

        Parameters
        ----------
        known : how many answers to the trial the sender knows of; Stale if there are others.
        """
        text = json.dumps(body, ensure_ascii=False, sort_keys=True)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                if submission and db.execute(
                    "SELECT 1 FROM events WHERE reviewer = ? AND submission = ?", (reviewer, submission)
                ).fetchone():  # fmt: skip
                    db.execute("ROLLBACK")
                    return False
                if known is not None and known != self._count(db, reviewer, trial):
                    raise Stale
                db.execute(
                    "INSERT INTO events (at, reviewer, kind, trial, submission, body) VALUES (?, ?, ?, ?, ?, ?)",
                    (at, reviewer, kind, trial, submission, text),
                )  # fmt: skip
                db.execute("COMMIT")
                return True
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def events(self, reviewer: str | None = None, kind: str | None = None) -> list[Event]:
        """All events in their order, or those of a reviewer or a kind."""
        with self._open() as db:
            rows = db.execute(
                "SELECT id, at, reviewer, kind, trial, body FROM events WHERE (? IS NULL OR reviewer = ?) "
                "AND (? IS NULL OR kind = ?) ORDER BY id", (reviewer, reviewer, kind, kind),
            ).fetchall()  # fmt: skip
        try:
            found = [Event(i, at, who, what, trial, json.loads(body)) for i, at, who, what, trial, body in rows]
        except (ValueError, TypeError, RecursionError) as error:
            raise RfbenchError(f"{self._path}: {one_line(error, 120)}; restore it from a backup") from None
        if not all(isinstance(t, str) for e in found for t in (e.at, e.reviewer, e.kind, e.trial)) or not all(
            isinstance(e.body, dict) for e in found
        ):
            raise RfbenchError(f"{self._path}: holds rows that are no answers; restore it from a backup")
        return found

    def answers(self, reviewer: str | None = None) -> dict[tuple[str, str], Event]:
        """The answer that counts, the last, by reviewer and trial."""
        return {(e.reviewer, e.trial): e for e in self.events(reviewer, "answer")}

    def forget(self, at: str, reviewer: str) -> int:
        """Delete all that a reviewer said, also from the file's free pages; returns how many events that were."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            count = db.execute("DELETE FROM events WHERE reviewer = ? AND kind <> 'forgotten'", (reviewer,)).rowcount
            db.execute(
                "INSERT INTO events (at, reviewer, kind, body) VALUES (?, ?, 'forgotten', ?)",
                (at, reviewer, json.dumps({"events": count})),
            )  # fmt: skip
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def backup(self, to: Path) -> None:
        """A whole copy, by SQLite's own means, also while answers come in."""
        to.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db, contextlib.closing(sqlite3.connect(to)) as copy:
            db.backup(copy)

    @staticmethod
    def _count(db: sqlite3.Connection, reviewer: str, trial: str) -> int:
        row = db.execute(
            "SELECT COUNT(*) FROM events WHERE reviewer = ? AND kind = 'answer' AND trial = ?", (reviewer, trial)
        ).fetchone()
        return int(row[0])
