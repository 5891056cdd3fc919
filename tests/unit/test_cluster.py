"""The actors of a cluster, over a stand-in for Ray: who is lost, who is replaced, and what is refused."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli import cli
from bench.core.errors import RfbenchError
from bench.executors.cluster import Cluster
from bench.executors.crew import Feeder, Job, Lost, Units


class _Error(Exception):
    """Ray's own errors begin here."""


class _Died(_Error):
    """An actor is gone."""


class _Task(_Error):
    """What a unit raised."""

    cause: Exception | None = None


class _Ray:
    """As much of Ray as is used: a call is done when it is waited for.

    Attributes
    ----------
    room : how many actors the cluster has room for; those beyond never begin.
    kinds : the device of each actor, in turn.
    ends_on : units that end the actor which has them, once each.
    dies_early : how many actors are gone before they begin.
    newest_first : whether of several calls that are done the last one is told first.
    """

    exceptions = SimpleNamespace(RayError=_Error, RayActorError=_Died, RayTaskError=_Task)

    def __init__(self) -> None:
        self.room, self.kinds, self.ends_on = 99, itertools.cycle(["a processor"]), set[Any]()
        self.alive: list[_Actor] = []
        self.dies_early = 0
        self.started = 0
        self.newest_first = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **share: Any) -> Any:
        assert share["max_restarts"] == share["max_task_retries"] == 0
        return lambda cls: SimpleNamespace(remote=lambda *arguments: _Actor(self))

    def wait(self, references: list[Any], num_returns: int, timeout: float | None) -> Any:
        possible = [one for one in references if one.is_possible()]
        done = (possible[::-1] if self.newest_first else possible)[:num_returns]
        assert done or timeout is not None, "it would wait for ever"
        return done, [one for one in references if one not in done]

    def get(self, reference: Any) -> Any:
        return reference.get()

    def kill(self, actor: Any, no_restart: bool) -> None:
        actor.end()


class _Actor:
    def __init__(self, ray: _Ray) -> None:
        self.ray, self.kind = ray, next(ray.kinds)
        ray.started += 1
        ray.alive.append(self)
        self.device = SimpleNamespace(remote=lambda: _Call(self, lambda: self.kind))
        if ray.dies_early:
            ray.dies_early -= 1
            self.end()
        self.work = SimpleNamespace(remote=lambda work, arguments: _Call(self, lambda: self._do(*arguments)))

    def end(self) -> None:
        if self in self.ray.alive:
            self.ray.alive.remove(self)

    def has_room(self) -> bool:
        return self in self.ray.alive[: self.ray.room]

    def _do(self, unit: Any) -> Any:
        if unit in self.ray.ends_on:
            self.ray.ends_on.discard(unit)
            self.end()
        if unit == "fails":
            error = _Task()
            error.cause = ValueError("no such image")
            raise error
        return f"{unit} is done"


class _Call:
    def __init__(self, actor: _Actor, call: Any) -> None:
        self.actor, self.call = actor, call

    def is_possible(self) -> bool:
        return self.actor not in self.actor.ray.alive or self.actor.has_room()

    def get(self) -> Any:
        found = self.call() if self.actor in self.actor.ray.alive else None
        if self.actor not in self.actor.ray.alive:
            raise _Died("the node is gone")
        return found


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> _Ray:
    made = _Ray()
    monkeypatch.setitem(sys.modules, "ray", made)  # type: ignore[arg-type]
    return made


def work(cluster: Cluster, units: list[str]) -> tuple[dict[str, str], BaseException | None]:
    """What became of the units, and what ended the work early."""
    found = dict[str, str]()
    with cluster.crew(Job(dict, ()), "predicting") as crew:
        feeder = Feeder(crew, Units(units), len, found.__setitem__, ahead=2)
        feeder.work()
    return found, feeder.error


def test_each_unit_is_done_once(ray: _Ray) -> None:
    cluster = Cluster()
    assert work(cluster, ["a", "b", "c"]) == ({u: f"{u} is done" for u in "abc"}, None)
    assert cluster.nodes == {"a processor": 2} and cluster.events == [] and not ray.alive


@pytest.mark.parametrize("room", [99, 1])
def test_a_lost_actor_s_units_are_done_by_others(ray: _Ray, room: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the cluster has no room for another, as after a node went for good."""
    cluster = Cluster(actors=2)
    crew = cluster.crew(Job(dict, ()), "predicting")
    ray.ends_on, ray.room = {"b"}, room
    found = dict[str, str]()
    feeder = Feeder(crew, Units("abcdef"), len, found.__setitem__, ahead=2)
    feeder.work()
    assert feeder.error is None and found == {u: f"{u} is done" for u in "abcdef"}
    assert cluster.events and "a predicting actor was lost with b in hand (the node is gone)" in cluster.events[0]
    assert "another one does it" in capsys.readouterr().err and ray.started == 3


def test_with_no_actor_left_the_work_ends(ray: _Ray) -> None:
    """And does not wait for ever for room that never comes."""
    cluster = Cluster(actors=1)
    crew = cluster.crew(Job(dict, ()), "predicting")
    ray.ends_on, ray.room = {"b"}, 0
    for actor in list(ray.alive):
        actor.end()
    feeder = Feeder(crew, Units("ab"), len, lambda key, result: None)
    feeder.work()
    assert isinstance(feeder.error, Lost) and "all predicting actors were lost" in str(feeder.error)
    assert sorted(iter(feeder._units.take_front, None)) == ["a", "b"]


def test_a_unit_that_ends_three_actors_ends_the_run(ray: _Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "ends_on", _Always("b"))
    found, error = work(Cluster(actors=2), ["b"])
    assert not found and isinstance(error, Lost) and "the third one; see what this image does to a node" in str(error)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_lost_actor_counts_once(ray: _Ray, newest_first: bool) -> None:
    """Not for what waited behind the unit that it worked on, whichever of them is told of first."""
    cluster = Cluster(actors=1)
    with cluster.crew(Job(dict, ()), "predicting") as crew:
        for unit in "abc":
            crew.give(unit, len, unit)
        ray.newest_first = newest_first
        ray.alive[0].end()
        found = dict[str, str]()
        while crew.waiting:
            found.update(crew.take())
    assert found == {u: f"{u} is done" for u in "abc"} and ray.started == 2
    assert cluster.events == ["a predicting actor was lost with a in hand (the node is gone); another one does it"]


def test_a_unit_behind_one_that_ends_actors_keeps_its_tries(ray: _Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "ends_on", _Times(b=2, a=2))
    found, error = work(Cluster(actors=1), ["a", "b"])
    assert error is None and found == {u: f"{u} is done" for u in "ab"} and ray.started == 5


class _Times(dict[Any, int]):
    """What is contained until it was discarded that often."""

    def __contains__(self, one: Any) -> bool:
        return self.get(one, 0) > 0

    def discard(self, one: Any) -> None:
        self[one] -= 1


class _Always(set[Any]):
    """A set that keeps what is taken from it."""

    def __init__(self, *of: Any) -> None:
        super().__init__(of)

    def discard(self, one: Any) -> None:
        pass


def test_what_is_refused_is_one_line(ray: _Ray) -> None:
    ray.kinds = itertools.cycle(["GPU A", "GPU B"])
    with pytest.raises(RfbenchError, match=r"devices of two kinds \(GPU A; GPU B\), whose last digits differ; insist"):
        Cluster(actors=2).crew(Job(dict, ()), "predicting")
    assert not ray.alive
    Cluster(actors=2, allow_mixed=True).crew(Job(dict, ()), "predicting").close(finish=True)
    ray.room = 0
    with pytest.raises(RfbenchError, match="the cluster has no room for an actor"):
        Cluster(actors=2).crew(Job(dict, ()), "predicting")
    assert not ray.alive


@pytest.mark.parametrize("allow_mixed", [False, True])
def test_a_late_actor_of_another_kind_costs_no_run(ray: _Ray, allow_mixed: bool) -> None:
    """It is ended, or counted where kinds may be mixed; the lost one counts no more."""
    cluster = Cluster(actors=2, allow_mixed=allow_mixed)
    ray.kinds, ray.ends_on = iter(["GPU A", "GPU A", "GPU B"]), {"c"}
    found, error = work(cluster, [*"abcdef"])
    assert error is None and found == {u: f"{u} is done" for u in "abcdef"}
    assert cluster.nodes == ({"GPU A": 1, "GPU B": 1} if allow_mixed else {"GPU A": 1})
    late = [event for event in cluster.events if "insist with --allow-mixed; the one that came late is ended" in event]
    assert len(late) == (not allow_mixed) and not ray.alive


def test_with_only_another_kind_left_the_work_ends(ray: _Ray) -> None:
    cluster = Cluster(actors=1)
    ray.kinds, ray.ends_on = iter(["GPU A", "GPU B"]), {"b"}
    _, error = work(cluster, ["a", "b"])
    assert isinstance(error, RfbenchError) and "devices of two kinds (GPU A; GPU B)" in str(error)
    assert cluster.nodes == {"GPU A": 0} and not ray.alive


def test_who_has_no_room_or_dies_early_stops_nobody(ray: _Ray) -> None:
    """Three are asked for, as before a node was lost: one is on that node, one has no room."""
    cluster, ray.room = Cluster(actors=3), 2
    ray.dies_early = 1
    found, error = work(cluster, ["a", "b", "c"])
    assert error is None and found == {u: f"{u} is done" for u in "abc"}
    assert [event.partition(" (")[0] for event in cluster.events] == [
        "a predicting actor cannot begin",
        "2 of 3 predicting actors have room; the others join when they do",
    ]
    ray.dies_early = 3
    with pytest.raises(RfbenchError, match=r"cannot begin \(the node is gone\); rfbench has to be installed on every"):
        cluster.crew(Job(dict, ()), "predicting")


def test_what_a_unit_raises_is_told(ray: _Ray) -> None:
    _, error = work(Cluster(actors=1), ["fails"])
    assert isinstance(error, RfbenchError) and str(error) == "a predicting actor failed: no such image"


@pytest.mark.parametrize("words", [("run", "--model", "bicubic"), ("score", "some-run")])
def test_options_of_a_cluster_go_with_one(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of predicting and of scoring alike."""
    with pytest.raises(RfbenchError, match="--actors goes with --executor ray; give that, or leave it out"):
        cli.main([*words, "--actors", "2"], standalone_mode=False)
    with pytest.raises(RfbenchError, match="--workers: found 2 with --executor ray, where --actors says how many"):
        cli.main([*words, "--executor", "ray", "--workers", "2"], standalone_mode=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RfbenchError, match=r"the package ray is not installed; pip install 'rfbench\[ray\]'"):
        cli.main([*words, "--executor", "ray"], standalone_mode=False)
