"""Protocols by what the user wrote, or by what a run recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bench.core import registry
from bench.core.errors import RfbenchError
from bench.core.options import build, split_spec
from bench.protocols.base import Protocol


def resolve_protocol(text: str) -> Protocol:
    """The protocol that ``NAME[:key=value,...]`` stands for."""
    name, options = split_spec(text)
    return build(_class(name), options, what=f"protocol {name}")


def recorded_protocol(identity: Mapping[str, Any]) -> Protocol:
    """The protocol with the identity that a run recorded; RfbenchError if the one that is installed has another."""
    name = str(identity["name"])
    found = _class(name)
    fields = {f.name for f in dataclasses.fields(found)}
    options = {key: str(value) for key, value in identity.items() if key in fields}
    protocol = build(found, options, what=f"protocol {name}")
    now = protocol.identity()
    other = [f"{k}: the run has {identity.get(k)!r:.40}, this version {now.get(k)!r:.40}"
             for k in sorted({*identity, *now}) if identity.get(k) != now.get(k)]  # fmt: skip
    if other:
        raise RfbenchError(f"the protocol {name} is not the one of the run ({'; '.join(other[:3])}); run it again")
    return protocol


def _class(name: str) -> type[Protocol]:
    found = registry.load("protocols", name)
    if not (isinstance(found, type) and issubclass(found, Protocol)):
        raise RfbenchError(f"the protocol '{name}' registers no subclass of bench.protocols.base.Protocol")
    return found
