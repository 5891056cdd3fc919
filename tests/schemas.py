"""The JSON Schemas of the records in ``docs/schemas``, made of their classes: ``python -m tests.schemas``."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from bench.configs.experiment import Experiment
from bench.data.captions import CaptionCard
from bench.data.dataset import Manifest
from bench.records import scores, types
from bench.reports.gate.rules import RulesFile
from bench.study.plan import Plan
from bench.weights.listing import WeightsFile
from rareflow.card import Card
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "schemas"
RECORDS: dict[str, Any] = {
    "run": types.RunRecord,
    "summary": types.Summary,
    "item": types.ItemRecord,
    "metric": types.MetricScores,
    "image-scores": scores.ImageScores,
    "gate-rules": RulesFile,
    "dataset": Manifest,
    "checkpoint-card": Card,
    "caption-card": CaptionCard,
    "experiment": Experiment,
    "weights": list[WeightsFile],
    "study-plan": Plan,
}


def schema(record: Any) -> str:
    """A record's schema as the file holds it."""
    return json.dumps(msgspec.json.schema(record), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, record in RECORDS.items():
        (FOLDER / f"{name}.schema.json").write_text(schema(record), encoding="utf-8")


if __name__ == "__main__":
    main()
