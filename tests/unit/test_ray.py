"""One cluster of Ray on loopback: the bytes of a local run, also where an actor is ended. Skipped without ray."""

from __future__ import annotations

from pathlib import Path

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

ENDS_ONCE = MINE.replace(
    '        if self.options["ends_on"] in batch.ids and multiprocessing.parent_process() is not None:\n',
    "        mark = os.path.join(os.path.dirname(__file__), 'ended')\n"
    "        if self.options['ends_on'] in batch.ids and not os.path.exists(mark):\n"
    "            open(mark, 'w').close()\n",
)


def test_a_cluster_gives_the_bytes_of_a_local_run(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two actors, of which one ends itself at an image; then data that are other ones on a node."""
    file = tmp_path / "mine.py"
    file.write_text(ENDS_ONCE)
    text = f"{file}:Mine:ends_on=im2"
    scoring = execute.Request(("psnr_rgb", "crps", "logspec_l1"), "cpu", 0)
    with cluster("local", actors=2) as found:
        request = Request((text,), data=str(dataset), device="cpu", is_remote=True, draws=2, out=tmp_path / "there")
        assert run(request, scoring, cluster=found).exit_code == 0
        host = RunFolder(tmp_path / "there" / "mine").sessions()
        assert host[0]["processes"] == 2 and len(host[0]["events"]) >= 1 and sum(host[0]["nodes"].values()) == 2
        assert "actor was lost" in capfd.readouterr().err
        prepared = make_plan(
            Request((str(text).replace("im2", "none"),), data=str(dataset), device="cpu", is_remote=True,
                    out=tmp_path / "other")
        )  # fmt: skip
        rows = (dataset / "pairs.csv").read_text()
        (dataset / "pairs.csv").write_text(rows.replace("number 1", "number 7"))
        with pytest.raises(RfbenchError, match="holds other data on"):
            run(prepared.request, scoring, prepared=prepared, cluster=found)
        (dataset / "pairs.csv").write_text(rows)
    local = Request((text,), data=str(dataset), device="cpu", workers=0, draws=2, out=tmp_path / "here")
    assert run(local, scoring).exit_code == 0
    assert tree(tmp_path / "there" / "mine") == tree(tmp_path / "here" / "mine")
    capfd.readouterr()


def test_no_cluster_is_one_line() -> None:
    with pytest.raises(RfbenchError, match=r"--address 127.0.0.1:1: no cluster of Ray answers"), cluster("127.0.0.1:1"):
        pass
