"""Predict and score: what ``rfbench run`` and ``rfbench.run`` do."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.core.reason import Reason
from bench.executors.cluster import Cluster
from bench.predict import plan
from bench.predict.execute import predict
from bench.records.folder import RunFolder
from bench.score import execute


@dataclass
class Outcome:
    """What a run left behind.

    Attributes
    ----------
    folders : of the models that ran.
    names : the metrics that were asked for.
    left_out : why a model did not run, by label; ``skipped``: why a metric was not computed, by name.
    failed : why images have no prediction or no score, by reason, with how many of each.
    """

    folders: tuple[RunFolder, ...]
    names: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, Reason] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """0 where all is done, 1 where images failed, 2 where a model was left out."""
        return 1 if self.failed else 2 if self.left_out else 0


def run(
    request: plan.Request,
    scoring: execute.Request,
    command_line: Sequence[str] = (),
    *,
    prepared: plan.Prepared | None = None,
    cluster: Cluster | None = None,
) -> Outcome:
    """Predict what is pending and score what is missing.

    ``prepared`` is the request's plan where it was made already; ``cluster`` is where all is computed, if not here.
    """
    prepared = prepared or plan.make_plan(request)
    predicted = predict(prepared, command_line, cluster)
    for why in predicted.left_out.values():
        print(f"warning: left out: {why}", file=sys.stderr)
    folders = tuple(predicted.folders.values())
    left_out = {**prepared.not_ready, **predicted.left_out}
    if not folders:
        raise plan.NotReady([*left_out.values()], len(request.models))
    scoring = dataclasses.replace(scoring, data=request.data, is_part=request.shard is not None)
    scored = execute.score(folders, scoring, command_line, cluster)
    return Outcome(folders, scored.names, left_out, scored.skipped, scored.failed + scored.broken)
