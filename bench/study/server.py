"""The pages that reviewers see. It reads the plan, the secret and the pictures, and never the key.

One page (``pages/study.html`` with its script and style), and a small interface that it talks to:

``GET  /i/TOKEN``      an invitation: sets the session's cookie and leads to ``/``
``GET  /api/state``    where the reviewer is: profile, or trial n of m with questions and earlier answer
``GET  /api/state?n=`` an earlier trial, to be corrected
``POST /api/profile``  role, degree, field, years
``POST /api/answer``   one trial's answers, with the order of panels as they stood on the screen
``GET  /p/ID.png``     a picture of one of the reviewer's own trials
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask
import itsdangerous
from werkzeug.exceptions import HTTPException

from bench.core.errors import RfbenchError, one_line
from bench.core.lock import lock
from bench.core.typed import decode_file, encode
from bench.study.create import now
from bench.study.plan import ANSWERS, CLOSED, PICTURES, SECRET, Plan, Question, Secret, Trial, read_plan
from bench.study.store import Stale, Store

_PAGES = Path(__file__).with_name("pages")
_MAX_BODY = 20_000
_MAX_TEXT = 2_000
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Refused(Exception):
    """A request that cannot be: the status and the words that the page shows."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


def invitations(study: Path) -> dict[str, str]:
    """The path of each reviewer's invitation, by pseudonym; the server's address goes before it."""
    signer = _signer(decode_file(study / SECRET, Secret).secret)
    return {reviewer: f"/i/{signer.dumps(reviewer)}" for reviewer in read_plan(study).trials}


def _signer(secret: str) -> itsdangerous.URLSafeSerializer:
    return itsdangerous.URLSafeSerializer(secret, salt="invitation", signer_kwargs={"digest_method": hashlib.sha256})


def serve(study: Path, host: str, port: int, public: str | None) -> None:
    """Serve until interrupted, one process at a time."""
    import waitress

    app = make_app(study, {host}, public)
    with lock(study, "serves the study", remedy="stop it, or use it"):
        server = waitress.create_server(app, host=host, port=port, threads=8, ident=None, channel_timeout=60)
        shown = f"[{host}]" if ":" in host else host
        print(f"serving {study} at http://{shown}:{server.effective_port}; Ctrl-C ends it", file=sys.stderr, flush=True)
        server.run()


def make_app(study: Path, hosts: set[str], public: str | None = None) -> flask.Flask:
    """The application.

    Parameters
    ----------
    hosts : the names by which it may be called, besides this machine's own; others are refused, since a page of another
        site could have its name lead here.
    public : the address that reviewers use where a proxy stands before it; with https, cookies need it too.
    """
    outside = urlsplit(public or "")
    if public and not (outside.scheme in ("http", "https") and outside.hostname):
        raise RfbenchError(
            f"--public: found '{one_line(public, 80)}', expected an address such as https://study.example.org"
        )
    plan = read_plan(study)
    secret = decode_file(study / SECRET, Secret).secret
    store = Store(study / ANSWERS, plan.sha256)
    reviewer_of = {p: who for who, trials in plan.trials.items() for t in trials for p in _pictures(t)}
    allowed = {h.lower() for h in hosts if h} | {outside.hostname or "localhost", "localhost", "127.0.0.1", "::1"}
    app = flask.Flask("rfbench-study", static_folder=None, template_folder=None)
    app.secret_key = secret
    app.config.update(
        MAX_CONTENT_LENGTH=_MAX_BODY, SESSION_COOKIE_NAME="study", SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SECURE=outside.scheme == "https",
    )  # fmt: skip

    @app.before_request
    def _check_host() -> None:
        if (urlsplit(f"//{flask.request.host}").hostname or "").lower() not in allowed:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "This study is not served under that name.")

    @app.after_request
    def _harden(response: flask.Response) -> flask.Response:
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response

    @app.errorhandler(Refused)
    def _refused(error: Refused) -> tuple[flask.Response, int]:
        return flask.jsonify({"error": str(error)}), int(error.status)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> tuple[flask.Response, int]:
        return flask.jsonify({"error": error.name}), error.code or 500

    @app.get("/")
    def _page() -> flask.Response:
        page = (_PAGES / ("study.html" if _who(plan) else "uninvited.html")).read_text(encoding="utf-8")
        return flask.Response(page, mimetype="text/html")

    @app.get("/pages/<name>")
    def _asset(name: str) -> flask.Response:
        kinds = {"study.js": "text/javascript", "study.css": "text/css"}
        if name not in kinds:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        return flask.Response((_PAGES / name).read_text(encoding="utf-8"), mimetype=kinds[name])

    @app.get("/favicon.ico")
    def _icon() -> flask.Response:
        return flask.Response(status=HTTPStatus.NO_CONTENT)  # browsers ask for it unasked

    @app.get("/i/<token>")
    def _invitation(token: str) -> Any:
        try:
            reviewer = _signer(secret).loads(token)
        except itsdangerous.BadSignature:
            raise Refused(HTTPStatus.FORBIDDEN, "This invitation is not one of this study's.") from None
        if reviewer not in plan.trials:
            raise Refused(HTTPStatus.FORBIDDEN, "This invitation is not one of this study's.")
        if flask.session.get("reviewer") != reviewer:
            flask.session.clear()
            flask.session.update(reviewer=reviewer, csrf=secrets.token_hex(16))
            flask.session.permanent = True
        return flask.redirect("/", HTTPStatus.SEE_OTHER)

    @app.get("/p/<name>")
    def _picture(name: str) -> flask.Response:
        found = re.fullmatch(r"([0-9a-f]{24})\.png", name)
        if not found or reviewer_of.get(found[1]) != _reviewer(plan):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such picture.")
        return flask.Response((study / PICTURES / name).read_bytes(), mimetype="image/png")

    @app.get("/api/state")
    def _state() -> flask.Response:
        asked = flask.request.args.get("n", "")
        number = int(asked) - 1 if re.fullmatch(r"[0-9]{1,6}", asked) else None
        return flask.jsonify(_told(study, plan, store, _reviewer(plan), number))

    @app.post("/api/profile")
    def _profile() -> flask.Response:
        reviewer, body = _posted(study, plan, outside.netloc)
        given = _checked(body.get("answers"), plan.profile, ())
        store.add(now(), reviewer, "profile", {"answers": given}, submission=_submission(body))
        return flask.jsonify(_told(study, plan, store, reviewer, None))

    @app.post("/api/answer")
    def _answer() -> flask.Response:
        reviewer, body = _posted(study, plan, outside.netloc)
        trials = plan.trials[reviewer]
        index = next((i for i, t in enumerate(trials) if t.id == body.get("trial")), None)
        if index is None:
            _incident(store, reviewer, "a trial that is not this reviewer's", body)
            raise Refused(HTTPStatus.NOT_FOUND, "This page is not part of your sitting.")
        trial = trials[index]
        if index > _first_open(plan, store, reviewer) or not store.events(reviewer, "profile"):
            _incident(store, reviewer, "a trial before its turn", body)
            raise Refused(HTTPStatus.CONFLICT, "Pages are answered in their order.")
        planned = [p.id for p in trial.panels]
        if body.get("shown") != planned:
            _incident(store, reviewer, "panels shown in another order than planned", body)
            raise Refused(
                HTTPStatus.BAD_REQUEST, "The images were not shown in the planned order; load the page again."
            )
        given = _checked(body.get("answers"), plan.questions[trial.kind], trial.parts)
        entry = {"answers": given, "shown": planned, "view": _view(body.get("view"))}
        known = body.get("known")
        if not isinstance(known, int) or isinstance(known, bool):
            raise Refused(HTTPStatus.BAD_REQUEST, "The request is incomplete.")
        try:
            store.add(now(), reviewer, "answer", entry, trial=trial.id, submission=_submission(body), known=known)
        except Stale:
            raise Refused(HTTPStatus.CONFLICT, "This page was answered in another tab; that answer counts.") from None
        return flask.jsonify(_told(study, plan, store, reviewer, None))

    return app


# --- what the page is told ------------------------------------------------------------------------------------


def _pictures(trial: Trial) -> list[str]:
    return [*(p.id for p in trial.panels), *([trial.mask] if trial.mask else [])]


def _first_open(plan: Plan, store: Store, reviewer: str) -> int:
    """The index of the first trial without an answer; their number where none is left."""
    done = {trial for _, trial in store.answers(reviewer)}
    return next((i for i, t in enumerate(plan.trials[reviewer]) if t.id not in done), len(plan.trials[reviewer]))


def _told(study: Path, plan: Plan, store: Store, reviewer: str, number: int | None) -> dict[str, Any]:
    trials = plan.trials[reviewer]
    told: dict[str, Any] = {
        "title": plan.title, "contact": plan.contact, "csrf": flask.session["csrf"], "total": len(trials),
        "closed": (study / CLOSED).is_file(),
    }  # fmt: skip
    if not store.events(reviewer, "profile"):
        return told | {"step": "profile", "consent": plan.consent, "questions": encode(plan.profile)}
    first = _first_open(plan, store, reviewer)
    index = first if number is None or not 0 <= number < first else number
    told |= {"open": first + 1}
    if index >= len(trials):
        return told | {"step": "done"}
    trial = trials[index]
    earlier = [e for e in store.events(reviewer, "answer") if e.trial == trial.id]
    return told | {
        "step": "trial", "n": index + 1, "stage": trial.stage, "kind": trial.kind, "trial": trial.id,
        "panels": encode(trial.panels), "mask": trial.mask, "caption": trial.caption, "parts": list(trial.parts),
        "questions": encode(plan.questions[trial.kind]), "known": len(earlier),
        "earlier": earlier[-1].body["answers"] if earlier else None,
    }  # fmt: skip


# --- what is taken from it ------------------------------------------------------------------------------------


def _who(plan: Plan) -> str | None:
    reviewer = flask.session.get("reviewer")
    return reviewer if isinstance(reviewer, str) and reviewer in plan.trials else None


def _reviewer(plan: Plan) -> str:
    reviewer = _who(plan)
    if reviewer is None:
        raise Refused(HTTPStatus.FORBIDDEN, "Open your invitation link first.")
    return reviewer


def _posted(study: Path, plan: Plan, outside: str) -> tuple[str, dict[str, Any]]:
    """The reviewer and the body of a request that came from our own page, while the study is open."""
    reviewer = _reviewer(plan)
    token, origin = flask.request.headers.get("X-CSRF-Token", ""), flask.request.headers.get("Origin")
    if not hmac.compare_digest(token.encode(), flask.session["csrf"].encode()):
        raise Refused(HTTPStatus.FORBIDDEN, "The session has changed; load the page again.")
    if origin is not None and urlsplit(origin).netloc not in (flask.request.host, outside):
        raise Refused(HTTPStatus.FORBIDDEN, "The request came from another site.")
    if (study / CLOSED).is_file():
        raise Refused(HTTPStatus.GONE, "The study is closed; thank you.")
    body = flask.request.get_json(silent=True)
    if not isinstance(body, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "The request is incomplete.")
    return reviewer, body


def _submission(body: Mapping[str, Any]) -> str:
    found = body.get("submission")
    if not isinstance(found, str) or not re.fullmatch(r"[0-9a-zA-Z-]{8,64}", found):
        raise Refused(HTTPStatus.BAD_REQUEST, "The request is incomplete.")
    return found


def _checked(answers: Any, asked: tuple[Question, ...], parts: tuple[str, ...]) -> dict[str, Any]:
    """Answers to exactly these questions, each of its kind; nothing else is stored."""
    if not isinstance(answers, dict) or set(answers) - {q.key for q in asked}:
        raise Refused(HTTPStatus.BAD_REQUEST, "The answers do not fit the questions.")
    found: dict[str, Any] = {}
    for question in asked:
        value = answers.get(question.key)
        if value in (None, "", []) and not question.required:
            continue
        if not _fits(value, question, parts):
            raise Refused(HTTPStatus.BAD_REQUEST, f"An answer is missing: {question.text}")
        found[question.key] = value
    return found


def _fits(value: Any, question: Question, parts: tuple[str, ...]) -> bool:
    if question.kind == "choice":
        return isinstance(value, str) and value in [o.value for o in question.options]
    if question.kind == "flag":
        return isinstance(value, bool)
    if question.kind == "text":
        return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= _MAX_TEXT
    return isinstance(value, list) and len(value) <= len(parts) and all(
        type(v) is int and 0 <= v < len(parts) for v in value
    )  # fmt: skip


def _view(view: Any) -> dict[str, float]:
    """How it was seen: zoom, size of the window, pixels of the screen for one of the page, time until the answer."""
    keys = ("zoom", "width", "height", "ratio", "elapsed_ms", "mask_ms")
    given = view if isinstance(view, dict) else {}
    return {
        k: float(given[k]) for k in keys
        if isinstance(given.get(k), int | float) and not isinstance(given[k], bool) and 0 <= given[k] < 1e9
    }  # fmt: skip


def _incident(store: Store, reviewer: str, what: str, body: Mapping[str, Any]) -> None:
    sent = {k: one_line(body.get(k), 200) for k in ("trial", "shown")}
    store.add(now(), reviewer, "incident", {"what": what, **sent})
