"""What a closed study found: first as data, then as tables that Markdown and LaTeX share, and as a paragraph."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.errors import RfbenchError, one_line
from bench.stats.means import LEVEL
from bench.study.agreement import Agreement, agreement
from bench.study.crossed import EQUIVALENCE, Share, Verdict, share_of, verdict
from bench.study.design import LR
from bench.study.strength import Comparison, Strength, strengths
from bench.study.trust import Trust, trust
from bench.study.votes import Study, Vote, catches, read_study, repeats

if TYPE_CHECKING:
    from pathlib import Path

    from bench.records.folder import RunFolder

_LONGEST_MS = 1e12
_STEPS = {"clarity": (-2, -1, 0, 1, 2), "parity": (-1, 0, 1)}


@dataclass(frozen=True)
class Judged:
    """A system in one question. ``steps`` counts the answers from "the other, much" to "the system, much"; ``share`` is
    that of votes for the system, ties half; ``without`` is the share without each reviewer; ``verdict`` of parity."""

    system: str
    question: str
    steps: tuple[int, ...]
    share: Share
    without: Mapping[str, float]
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Reviewer:
    """What is known of a reviewer, none of which anybody is left out for. Counts are (as expected, of how many)."""

    name: str
    profile: Mapping[str, str]
    answers: int
    pages: int
    caught: tuple[int, int]
    repeated: tuple[int, int]
    right: tuple[int, int]
    median_s: float | None


@dataclass(frozen=True)
class Report:
    """A closed study's results. ``validity`` is None without captions; ``strengths`` is empty with one system,
    ``trust`` without runs."""

    title: str
    design: str
    plan_sha256: str
    data: str
    protocol: str
    margin: tuple[float, float]
    reviewers: tuple[Reviewer, ...]
    forgotten: int
    validity: Share | None
    validity_steps: tuple[int, ...]
    unsure: int
    judged: tuple[Judged, ...]
    agreement: Mapping[str, Agreement]
    strengths: tuple[Strength, ...]
    trust: tuple[Trust, ...]
    scenes: int
    images: int


def build(folder: Path, runs: Sequence[RunFolder] = ()) -> Report:
    """The report of a closed study; with the runs that it was made of, each metric's agreement with the votes.

    Raises RfbenchError where the study is open or nobody answered, NotComparable for other runs.
    """
    study = read_study(folder)
    if not study.votes:
        raise RfbenchError(f"{folder} was closed without an answer, so there is nothing to report")
    validity = study.counted("validity")
    judged = [
        _judged(study, votes, system, question)
        for system in study.systems
        for question in ("clarity", "parity")
        if (votes := [v for v in study.counted(question) if v.system == system])
    ]
    compared = [Comparison(v.reviewer, v.scene, v.system, v.other, v.share)
                for v in [*study.counted("clarity"), *study.counted("between")]]  # fmt: skip
    several = len({c.a for c in compared}) > 1
    answers = [e for e in study.events if e.kind == "answer"]
    last = {(e.reviewer, e.trial): e for e in answers}
    return Report(
        title=study.plan.title,
        design=study.plan.design,
        plan_sha256=study.plan.sha256,
        data=study.key.data,
        protocol=study.key.protocol,
        margin=study.plan.margin,
        reviewers=tuple(_reviewers(study)),
        forgotten=len({e.reviewer for e in study.events if e.kind == "forgotten"}),
        validity=share_of(*_columns(validity)) if validity else None,
        validity_steps=tuple(sum(v.steps == s for v in validity) for s in (1.0, 0.5, 0.0)),
        unsure=sum(bool(e.body["answers"].get("unsure")) for e in last.values()),
        judged=tuple(judged),
        agreement={q: a for q in ("validity", "clarity", "parity", "between") if (a := _agreed(study.counted(q), q))},
        strengths=tuple(strengths(compared)) if several else (),
        trust=tuple(trust(study, runs)) if runs else (),
        scenes=len({v.scene for v in study.votes}),
        images=len({v.image for v in study.votes}),
    )


def _columns(votes: Sequence[Vote]) -> tuple[list[float], list[str], list[str]]:
    return [v.share for v in votes], [v.reviewer for v in votes], [v.scene for v in votes]


def _judged(study: Study, votes: Sequence[Vote], system: str, question: str) -> Judged:
    names = sorted({v.reviewer for v in votes})
    without = {}
    for name in names:
        others = [v.share for v in votes if v.reviewer != name]
        if others:
            without[name] = statistics.fmean(others)
    steps = tuple(sum(v.steps == s for v in votes) for s in _STEPS[question])
    share = share_of(*_columns(votes), level=EQUIVALENCE if question == "parity" else LEVEL)
    return Judged(system, question, steps, share, without,
                  verdict(share, study.plan.margin) if question == "parity" else None)  # fmt: skip


def _agreed(votes: Sequence[Vote], question: str) -> Agreement | None:
    """Over everything that two or more judged; of two systems the answer is turned so that all face one way."""
    ratings = []
    for v in votes:
        turn = question == "between" and v.system > v.other
        item = "\x1f".join((v.image, *sorted((v.system, v.other))))
        ratings.append((v.reviewer, item, -v.steps if turn else v.steps))
    return agreement(ratings, "ordinal")


def _reviewers(study: Study) -> list[Reviewer]:
    caught, repeated = catches(study), repeats(study)
    rows = []
    for name, trials in study.plan.trials.items():
        mine = {e.trial: e for e in study.events if e.reviewer == name and e.kind == "answer"}
        if not mine:
            continue
        profiles = [e.body.get("answers") for e in study.events if e.reviewer == name and e.kind == "profile"]
        last = profiles[-1] if profiles else {}
        profile = {one_line(k, 40): one_line(v, 80) for k, v in last.items()} if isinstance(last, dict) else {}
        sides = [v.right for v in study.votes if v.reviewer == name and v.right is not None]
        times = [_seconds(e.body.get("view")) for e in mine.values()]
        nothing = (0, 0)
        rows.append(Reviewer(name, profile, len(mine), len(trials),
                             caught.get(name, nothing), repeated.get(name, nothing),
                             (sum(sides), len(sides)), statistics.median(times)))  # fmt: skip
    return rows


def _seconds(view: Any) -> float:
    """How long a page was looked at, as the browser said; 0 where it said no such thing."""
    found = view.get("elapsed_ms") if isinstance(view, dict) else None
    return found / 1000 if isinstance(found, int | float) and 0 <= found < _LONGEST_MS else 0.0


# --- tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A table with a title, and what a reader must know of it below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def blocks(report: Report) -> list[Block]:
    """The report's tables."""
    made = []
    low, high = report.margin
    clarity = [j for j in report.judged if j.question == "clarity"]
    parity = [j for j in report.judged if j.question == "parity"]
    if report.validity:
        made.append(Block(
            "Are the captions valid?", ("valid", "partly", "not", "unsure", "share valid (partly half)"),
            ((*map(str, report.validity_steps), str(report.unsure), _interval(report.validity)),),
        ))  # fmt: skip
    if clarity:
        made.append(Block(
            "Clarity: SR against LR", ("system", "LR much", "LR a little", "same", "SR a little", "SR much",
                                       "share SR (ties half)", "without any one reviewer"),
            tuple((j.system, *map(str, j.steps), _interval(j.share), _range(j)) for j in clarity),
        ))  # fmt: skip
    if parity:
        made.append(Block(
            "Parity: SR against HR", ("system", "HR", "equal", "SR", "share SR (ties half)", "without any one reviewer",
                                      "verdict"),
            tuple((j.system, *map(str, j.steps), _interval(j.share), _range(j), str(j.verdict)) for j in parity),
            f"On a par: the {EQUIVALENCE:.0%} interval lies within {low:g} to {high:g}, the margin that the plan fixed "
            "(two one-sided tests at 5 %).",
        ))  # fmt: skip
    if report.strengths:
        made.append(Block(
            "Bradley-Terry strengths of clarity",
            ("contestant", "strength", f"{LEVEL:.0%} interval", "wins", "comparisons"),
            tuple(("LR" if s.name == LR else s.name, f"{s.value:.2f}", _ends(s.low, s.high), f"{s.wins:g}",
                   str(s.comparisons))
                  for s in report.strengths),
            "Log-odds relative to the mean of the contestants; ties are half a win for both.",
        ))  # fmt: skip
    if report.agreement:
        made.append(Block(
            "Agreement", ("question", "items", "raters", "raw", "alpha", "kappa", "AC1"),
            tuple((name, str(a.items), str(a.raters), f"{a.raw:.1%}", *map(_number, (a.alpha, a.kappa, a.ac1)))
                  for name, a in report.agreement.items()),
            "Krippendorff's alpha (ordinal), Fleiss' kappa and Gwet's AC1, to be read together: where nearly all "
            "answers are the same, the first two fall towards 0 however seldom raters differ.",
        ))  # fmt: skip
    if report.trust:
        made.append(Block(
            "Which metric agrees with the votes?", ("metric", "accuracy", "pairs", "Kendall's tau", "samples"),
            tuple((t.title, _inference(t) or t.reason, str(t.pairs), _tau(t), str(t.samples)) for t in report.trust),
            "Accuracy: of two answers of which people preferred one, how often the metric prefers the same; 0.5 is a "
            "coin. Intervals are over scenes.",
        ))  # fmt: skip
    made.append(Block(
        "Reviewers",
        ("reviewer", "role", "degree", "field", "years", "pages", "catch trials", "repeats alike", "chose right",
         "median s"),
        tuple((r.name, *(one_line(r.profile.get(k, "–"), 40) for k in ("role", "degree", "field", "years")),
               f"{r.answers} of {r.pages}", *(f"{a} of {b}" for a, b in (r.caught, r.repeated, r.right)),
               "–" if r.median_s is None else f"{r.median_s:.1f}") for r in report.reviewers),
        "Nobody is left out by a rule; the shares without each reviewer are above."
        + (f" {report.forgotten} reviewers' answers were deleted at their wish." if report.forgotten else ""),
    ))  # fmt: skip
    return made


def _interval(share: Share) -> str:
    if share.low is None or share.high is None:
        return f"{share.value:.2f} ({share.reason})"
    return f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


def _range(judged: Judged) -> str:
    found = judged.without.values()
    return f"{min(found):.2f} to {max(found):.2f}" if found else "–"


def _ends(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _inference(found: Trust) -> str:
    a = found.accuracy
    if a is None:
        return ""
    return f"{a.value:.2f}" + (
        f" ({max(0.0, a.low):.2f} to {min(1.0, a.high):.2f})" if a.low is not None and a.high is not None else ""
    )


def _tau(found: Trust) -> str:
    if found.tau is None:
        return "–"
    return f"{found.tau:.2f}" + (f" ({_ends(found.tau_low, found.tau_high)})" if found.tau_low is not None else "")


# --- writers --------------------------------------------------------------------------------------------------


def about(report: Report) -> str:
    """What the study was, in one line."""
    design = "two anonymous panels" if report.design == "blind" else "four images with their roles named"
    return (
        f"{len(report.reviewers)} reviewers, {report.images} images of {report.scenes} scenes of {report.data} "
        f"(protocol {report.protocol}); design '{report.design}' ({design}); plan {report.plan_sha256[:12]}. "
        f"Intervals are over reviewers and scenes ({EQUIVALENCE:.0%} for parity, else {LEVEL:.0%})."
    )


def to_markdown(report: Report) -> str:
    """The tables in Markdown."""
    lines = [f"# {_cell(report.title)}", "", about(report)]
    for block in blocks(report):
        lines += ["", f"## {block.title}", "", "| " + " | ".join(block.header) + " |"]
        lines.append("|:--" * len(block.header) + "|")
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in block.rows]
        lines += ["", block.note] if block.note else []
    return "\n".join(lines)


def _cell(text: str) -> str:
    return one_line(text, 200).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def to_latex(report: Report) -> str:
    """The tables in LaTeX, with booktabs."""
    from bench.reports.render.latex import latex_text

    lines = [f"% {one_line(about(report), 400)}"]
    for block in blocks(report):
        lines += [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{latex_text(block.title)}. {latex_text(block.note)}}}",
        ]
        lines += [rf"\begin{{tabular}}{{{'l' * len(block.header)}}}", r"\toprule"]
        lines += [" & ".join(map(latex_text, block.header)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(latex_text, row)) + r" \\" for row in block.rows]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """Everything at full precision."""
    found: dict[str, Any] = {"format": 1} | dataclasses.asdict(report)
    return json.dumps(found, indent=1, ensure_ascii=False)


def to_methods(report: Report) -> str:
    """The paragraph of a methods section."""
    roles = Counter(r.profile.get("role", "unknown") for r in report.reviewers)
    doctors = sum(r.profile.get("degree") == "doctorate" for r in report.reviewers)
    who = ", ".join(f"{n} {one_line(role, 40)}" for role, n in roles.most_common())
    shown = (
        "two images side by side without their origin (SR and LR, SR and HR, or two systems), the outline of the "
        "feature on demand" if report.design == "blind" else
        "four images with their roles named (HR with the feature outlined, HR, SR, LR)"
    )  # fmt: skip
    systems = ", ".join(dict.fromkeys(j.system for j in report.judged))
    validity = (
        "whether the caption is valid for the HR image and its outlined feature, then " if report.validity else ""
    )
    bt = "Strengths of more than two systems are a regularised Bradley-Terry model's. " if report.strengths else ""
    return (
        f"{len(report.reviewers)} reviewers ({who}; {doctors} with a doctorate) judged {report.images} images of "
        f"{report.scenes} scenes of {report.data} in a study whose plan was fixed and hashed beforehand "
        f"({report.plan_sha256[:12]}). They were shown {shown}, in an order and on sides balanced by the plan, and "
        f"asked {validity}how clear SR is against LR in five steps, and from which of SR and HR they would rather "
        "map the feature. "
        f"Systems: {systems}. Shares count ties half; their intervals are over reviewers and scenes (two-way clustered "
        f"variance, Student's quantile). SR is called on a par with HR where the {EQUIVALENCE:.0%} interval of the "
        f"share that chose it lies within {report.margin[0]:g} to {report.margin[1]:g}. {bt}Agreement is given as "
        "Krippendorff's alpha, Fleiss' kappa and Gwet's AC1 together. Catch trials and repeats are reported; "
        "no reviewer was left out."
    )


WRITERS = {"markdown": to_markdown, "latex": to_latex, "json": to_json, "methods": to_methods}
