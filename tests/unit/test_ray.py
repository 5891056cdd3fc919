"""A cluster of two raylets on loopback: the bytes of a local run, also where an actor is ended. Skipped without ray."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from bench.core.errors import RfbenchError
from bench.executors.cluster import cluster
from bench.predict.plan import Request, make_plan
from bench.records.folder import RunFolder
from bench.score import execute
from bench.score.run import run
from tests.e2e.test_run import tree
from tests.unit.test_scale import MINE

pytest.importorskip("ray", reason="the extra [ray] is not installed")

LIMIT_S = 300
"""No test hangs: a machine that is busy takes minutes for what is done in one."""
ENDS_ONCE = MINE.replace(
    '        if self.options["ends_on"] in batch.ids and multiprocessing.parent_process() is not None:\n',
    "        mark = os.path.join(os.path.dirname(__file__), 'ended')\n"
    "        if self.options['ends_on'] in batch.ids and not os.path.exists(mark):\n"
    "            open(mark, 'w').close()\n",
)


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """An error where the block takes longer."""

    def late(signal_number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def raylets(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster of two raylets with a core each; all of its processes end with the test."""
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    store = 80_000_000  # the least that Ray takes; a test's images are small
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": store}
    with limited(LIMIT_S):
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            started.add_node(num_cpus=1, object_store_memory=store)
            yield started.address
        finally:
            started.shutdown()


def test_a_cluster_gives_the_bytes_of_a_local_run(
    dataset: Path, tmp_path: Path, raylets: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two actors, of which one ends itself at an image; then data that are other ones on a node."""
    file = tmp_path / "mine.py"
    file.write_text(ENDS_ONCE)
    text = f"{file}:Mine:ends_on=im2"
    scoring = execute.Request(("psnr_rgb", "crps", "logspec_l1"), "cpu", 0)
    with cluster(raylets, actors=2) as found:
        request = Request((text,), data=str(dataset), device="cpu", is_remote=True, draws=2, out=tmp_path / "there")
        assert run(request, scoring, cluster=found).exit_code == 0
        predicted, scored = RunFolder(tmp_path / "there" / "mine").sessions()
        assert predicted["processes"] == 2 and len(predicted["events"]) >= 1 and scored["events"] == []
        assert "actor was lost" in capfd.readouterr().err
        found.actors = 1
        prepared = make_plan(
            Request((text.replace("im2", "none"),), data=str(dataset), device="cpu", is_remote=True,
                    out=tmp_path / "other")
        )  # fmt: skip
        rows = (dataset / "pairs.csv").read_text()
        (dataset / "pairs.csv").write_text(rows.replace("number 1", "number 7"))
        with pytest.raises(RfbenchError, match=r"on .*: .* holds other data than those of the run"):
            run(prepared.request, scoring, prepared=prepared, cluster=found)
        (dataset / "pairs.csv").write_text(rows)
    local = Request((text,), data=str(dataset), device="cpu", workers=0, draws=2, out=tmp_path / "here")
    assert run(local, scoring).exit_code == 0
    assert tree(tmp_path / "there" / "mine") == tree(tmp_path / "here" / "mine")
    capfd.readouterr()


def test_no_cluster_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for given, said in (
        (address, rf"--address {address}: no cluster of Ray answers \("),
        ("there", "--address: found 'there', expected auto, local or HOST:PORT"),
    ):
        with pytest.raises(RfbenchError, match=said), cluster(given):
            pass
