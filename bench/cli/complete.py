"""What the shell completes: the names of models, metrics, protocols and datasets, and folders where a path may stand.

Names alone: a shell ends a word at ``:`` and ``=``, so it never asks for the options behind a name. Nothing here may
import torch: a shell asks at every press of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import click
from click.shell_completion import CompletionItem

Kind = Literal["models", "metrics", "protocols", "datasets"]
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _begun(incomplete: str, names: Sequence[str], path: str = "") -> list[CompletionItem]:
    """The names that begin so; where none does, a path of this kind."""
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or ([CompletionItem(incomplete, type=path)] if path else [])


def _of(kind: Kind, path: str = "") -> Complete:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from bench.core import registry

        return _begun(incomplete, registry.names(kind), path)

    return complete


def _listed(names: Callable[[], Sequence[str]]) -> Complete:
    """The last name of a list with commas."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + item.value) for item in _begun(last, names())]

    return complete


def _models() -> list[str]:
    from bench.core import registry

    return registry.names("models")


def _words_of_metrics() -> list[str]:
    from bench.metrics.scorer import words

    return words()


model = _of("models", "file")  # or a file's class
metric = _of("metrics")
protocol = _of("protocols")
dataset = _of("datasets", "dir")
metrics_list = _listed(_words_of_metrics)
models_list = _listed(_models)


def model_or_metric(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What has pretrained files."""
    return [*metric(context, parameter, incomplete), *_of("models")(context, parameter, incomplete)]
