"""``rfbench cite``: what a run used is cited and nothing else, exactly, and no name in a run can break a paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import cli
from bench.core import registry
from bench.core.errors import RfbenchError
from bench.metrics import software
from bench.metrics.scorer import metric_class
from bench.metrics.software import Software
from bench.records.folder import RunFolder
from bench.records.run import find_runs, read_run
from bench.reports.cite import bibtex
from bench.reports.cite.bibtex import Entry, library, of_part, parse, plain
from bench.reports.cite.collect import Methods, collect
from bench.reports.cite.write import WRITERS
from tests.conftest import PLUGIN, ROOT, install_plugin, installed, write_dataset
from tests.runs import run as run_models

METRICS = ("psnr_rgb", "ssim_rgb", "sam_rgb", "lpips_alex", "nll", "mean_error")
OWN_ENTRY = r"""@article{noisy2026, author = {M{\"u}ller, A. and Li, B.}, title = {Noise}, year = 2026,
  note = {\input{secret}}}"""
CITED_PLUGIN = PLUGIN.replace(
    'licence="CC0", default', f'licence="CC BY-NC 4.0", citation={OWN_ENTRY!r}, default'
).replace('    summary = "mean', '    citation = "A. Nobody, 100 % of it in_house"\n    summary = "mean')


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two finished runs whose plugin is gone by now."""
    folder = tmp_path_factory.mktemp("cite")
    data = write_dataset(folder / "d", count=2, info={"citation": "cornebise2022worldstrat", "licence": "CC BY-NC 4.0"})
    with installed(install_plugin(folder / "site", CITED_PLUGIN), "rfbench_example"):
        run_models(
            models=("noisy", "bicubic"), data=str(data), metrics=METRICS, workers=0, draws=2, device="cpu",
            out=folder / "out",
        )  # fmt: skip
    yield folder / "out"


@pytest.fixture
def methods(runs: Path) -> Methods:
    return collect(find_runs([runs]))


def keys(methods: Methods) -> list[str]:
    return [entry.key for entry in methods.works]


# --- the library ----------------------------------------------------------------------------------------------


def test_the_library_is_whole() -> None:
    text = (ROOT / "bench" / "reports" / "cite" / "citations.bib").read_text(encoding="utf-8")
    assert len(library()) == len(re.findall(r"^@", text, flags=re.M))
    for entry in library().values():
        assert entry.field("author") and entry.field("title"), entry.key
        # A program without a paper has no year. Styles of BibTeX know no kind 'software'.
        is_program = entry.key in ("rfbench", "colour", "pillow")
        assert is_program or re.fullmatch(r"(19|20)\d\d", entry.field("year")), entry.key
        assert entry.kind in ("article", "inproceedings", "misc"), entry.key
        where = [f for f in ("doi", "eprint", "url") if entry.field(f)]
        assert where or entry.key == "rfbench", entry.key
        assert not entry.field("doi") or re.fullmatch(r"10\.\d{4,5}/\S+", entry.field("doi"))
        assert not entry.field("eprint") or re.fullmatch(r"\d{4}\.\d{4,5}", entry.field("eprint"))
        assert entry.text().count("{") == entry.text().count("}")


def test_a_key_s_year_is_its_entry_s() -> None:
    for entry in library().values():
        year = re.search(r"(19|20)\d\d", entry.key)
        assert year is None or year[0] == entry.field("year"), entry.key


def test_rfbench_is_cited_as_its_citation_file_says() -> None:
    stated = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    ours = library()["rfbench"]
    assert f'title: "{ours.field("title")}"' in stated
    assert f"name: {plain(ours.field('author'))}" in stated
    assert (
        f"version: {ours.field('note').removeprefix('Version ')}" in stated
        and f"license: {ours.field('license')}" in stated
    )


def test_what_is_registered_cites_keys_that_exist() -> None:
    cited = {registry.load("models", n).citation for n in registry.names("models")}
    cited |= {metric_class(n).citation for n in registry.names("metrics")}
    for citation in cited:
        assert set(citation.split()) <= library().keys(), citation
    assert {s.citation for s in vars(software).values() if isinstance(s, Software) and s.citation} <= library().keys()
    without = {n for n in registry.names("metrics") if not metric_class(n).citation}
    assert without == {"psnr_rgb", "psnr_y", "logspec_l1", "seams", "style_spectrum"}  # a textbook's, and our own


def test_the_metrics_docstrings_and_the_library_name_the_same_dois() -> None:
    """Written down twice, independently: once beside the code, once in the library."""
    for name in registry.names("metrics"):
        kind = metric_class(name)
        for doi in re.findall(r"doi:(10\.\S+?)[.,]?\s", (kind.__doc__ or "") + " "):
            dois = {library()[k].field("doi") for k in kind.citation.split()}
            assert doi.rstrip(".,);") in dois, (name, doi, dois)


# --- a run ----------------------------------------------------------------------------------------------------


def test_only_what_was_used_is_cited(methods: Methods) -> None:
    found = keys(methods)
    assert found[0] == "rfbench" and len(found) == len(set(found))
    assert {"paszke2019pytorch", "harris2020numpy", "wang2004ssim"} < set(found)
    assert {"cornebise2022worldstrat", "keys1981cubic", "noisy2026", "metric-mean-error"} < set(found)
    assert not {"zhang2018lpips", "heusel2017fid", "duchon1979lanczos", "mittal2013niqe"} & set(found)
    assert "kruse1993sips" in found and "chen2022pyiqa" not in found
    assert any("lpips_alex was not computed and is not cited: " in note for note in methods.notes)
    assert any(note.startswith("bicubic has no nll: no predictive distribution") for note in methods.notes)


def test_identities_are_the_run_s_own(methods: Methods, runs: Path) -> None:
    records = {f.path.name: f.record() for f in find_runs([runs])}
    shown = {(i.kind, i.name): i.signature for i in methods.identities}
    assert shown["dataset", "tiny, split test"] == records["noisy"].plan.data.fingerprint
    metric = read_run(runs / "noisy").metrics["ssim_rgb"]
    assert shown["metric", "ssim_rgb"] == metric.identity
    assert ("metric", "lpips_alex") not in shown
    for name, record in records.items():
        assert shown["run", name] == f"plan {record.plan_sha256}"
    assert "amount=0.05" in shown["model", "noisy"]


def test_licences_say_what_they_restrict(methods: Methods) -> None:
    found = {x.what: (x.licence, x.restricts) for x in methods.licences}
    assert found["dataset tiny"] == found["model noisy"] == ("CC BY-NC 4.0", "no commercial use")
    assert found["model bicubic"] == ("Apache-2.0", "") and found["package torch"][0] == "BSD-3-Clause"
    assert not any("alexnet" in what or "LPIPS" in what for what in found)


def test_a_base_s_licence_is_named(runs: Path, tmp_path: Path) -> None:
    licence = "Apache-2.0; Stability AI Community License (SD3's weights, and what was trained on them)"
    methods = collect([spoil(runs / "bicubic", lambda r: r["licences"].update(model=licence), tmp_path / "run")])
    (found,) = [x for x in methods.licences if x.what == "model bicubic"]
    assert (found.licence, found.restricts) == (licence, "conditions on who uses it, or what for")


def test_the_paragraph_says_how_it_was_done(methods: Methods) -> None:
    text = json.loads(WRITERS["json"](methods))["paragraph"]
    for words in ("rfbench 0.1.0", "2 of the split test of the dataset tiny", "protocol paired", "noisy gave 2 draws",
                  "run seed 0", "float32 on cpu", "quantise=8", "Scores are ", "PSNR, SAM"):  # fmt: skip
        assert words in text, words
    assert "LPIPS" not in text and "bicubic gave" not in text


def test_every_format_cites_the_same_works_and_is_repeatable(methods: Methods, runs: Path) -> None:
    again = collect(find_runs([runs]))
    for name, write in WRITERS.items():
        text = write(methods)
        assert text == write(again) and "\r" not in text and "\x00" not in text, name
    cited = set(re.findall(r"@([\w:-]+)", re.sub(r"\\@", "", WRITERS["markdown"](methods).partition("\n|")[0])))
    in_latex = {k for group in re.findall(r"\\cite\{([^}]*)\}", WRITERS["latex"](methods)) for k in group.split(",")}
    assert cited == in_latex == set(keys(methods))
    assert [e.key for e in parse(WRITERS["bibtex"](methods))] == keys(methods)
    text = " ".join(WRITERS["text"](methods).split())
    assert "(Wang et al. 2004)" in text and "Müller and Li 2026" in text


# --- hostile --------------------------------------------------------------------------------------------------

EVIL = "a|b \\input{/etc/passwd} $x_1$ {<script>} ``` % & # ~ ^\n| new row | @key \u202e"


def spoil(
    run: Path, change: Callable[[dict[str, Any]], None], target: Path,
    change_summary: Callable[[dict[str, Any]], None] = lambda summary: None,
) -> RunFolder:  # fmt: skip
    shutil.copytree(run, target)
    for name, of in (("run.json", change), ("summary.json", change_summary)):
        record = json.loads((target / name).read_text())
        of(record)
        (target / name).write_text(json.dumps(record))
    return RunFolder(target)


def everywhere(record: dict[str, Any]) -> None:
    plan = record["plan"]
    plan["model"] |= {"label": EVIL, "options": {EVIL: EVIL}, "adapter": {EVIL: EVIL}}
    plan["model"]["spec"] |= {"upstream": EVIL, "commit": EVIL, "weights": {EVIL: {"licence": EVIL}}}
    plan["data"] |= {"name": EVIL, "split": EVIL, "fingerprint": EVIL}
    plan["protocol"] |= {"captions": EVIL}
    record["software"] |= {"rfbench": EVIL, "python": EVIL, "commit": EVIL}
    record["licences"] = {"data": EVIL, "model": EVIL}
    record["sources"] = {
        "data": {"citation": EVIL, "licences": [EVIL]},
        "model": {"citation": "@misc{evil, title = {" + EVIL.replace("{", "").replace("}", "") + "}}"},
    }


def in_the_summary(summary: dict[str, Any]) -> None:
    of = dict.fromkeys(("title", "identity", "citation", "package", "licence"), EVIL)
    summary["metrics"]["psnr_rgb"] |= of
    summary["rows"]["sample"]["metrics"]["psnr_rgb"]["identity"] = EVIL


def test_hostile_names_are_escaped_everywhere(runs: Path, tmp_path: Path) -> None:
    methods = collect([spoil(runs / "bicubic", everywhere, tmp_path / "run", in_the_summary)])
    latex, markdown, bib = (WRITERS[n](methods) for n in ("latex", "markdown", "bibtex"))
    for text in (latex, bib):
        assert "\\input" not in text and "\u202e" not in text
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert not re.findall(r"(?<!\\)[#%]", body)
    for line in body.splitlines():
        if line.endswith("\\tabularnewline"):
            assert len(re.findall(r"(?<!\\)&", line)) == 2, line
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert tables and all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in tables)
    assert "<script>" not in re.sub(r"`+[^`]*`+", "", markdown.partition("```")[0].replace("\\<", ""))
    for entry in parse(bib):
        assert entry.text().count("{") == entry.text().count("}")
    assert len(parse(bib)) == len(methods.works) == bib.count("\n\n") + 1
    json.loads(WRITERS["json"](methods))


def typeset(methods: Methods, folder: Path) -> str:
    """What LaTeX and BibTeX say of the paragraph, the tables and the references in a plain article."""
    for program in ("pdflatex", "bibtex"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder.mkdir()
    body = WRITERS["latex"](methods)
    (folder / "p.tex").write_text(
        f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n"
        "\\bibliographystyle{plain}\n\\bibliography{references}\n\\end{document}\n",
        encoding="utf-8",
    )
    (folder / "references.bib").write_text(WRITERS["bibtex"](methods), encoding="utf-8")
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "p"]
    for words in (latex, ["bibtex", "p"], latex, latex):
        done = subprocess.run(words, cwd=folder, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (folder / "p.log").read_text(encoding="utf-8", errors="replace")
    assert "undefined references" not in log and "multiply defined" not in log
    return log + (folder / "p.blg").read_text(encoding="utf-8", errors="replace")


def overfull_pt(log: str) -> float:
    """How far the widest line sticks out of the page's text."""
    return max(map(float, re.findall(r"Overfull \\hbox \(([0-9.]+)pt", log)), default=0.0)


def test_it_compiles_and_fits(methods: Methods, tmp_path: Path) -> None:
    log = typeset(methods, tmp_path / "paper")
    # Typewriter does not stretch: where lines end depends on the commit, and one may be a few points too long.
    assert overfull_pt(log) < 20 and "isn't style-file defined" not in log


def test_hostile_names_compile_and_stay_on_the_page(runs: Path, tmp_path: Path) -> None:
    log = typeset(collect([spoil(runs / "bicubic", everywhere, tmp_path / "run", in_the_summary)]), tmp_path / "paper")
    assert overfull_pt(log) < 60  # words that no typesetter could break


def test_sources_of_another_shape_are_read_as_far_as_they_go(runs: Path, tmp_path: Path) -> None:
    strange = {"model": {"citation": ["x"]}, "data": None, "metrics": {"psnr_rgb": 3}}
    methods = collect([spoil(runs / "noisy", lambda r: r.update(sources=strange), tmp_path / "run")])
    for write in WRITERS.values():
        assert write(methods)


def test_a_run_without_sources_is_said_and_looked_up(runs: Path, tmp_path: Path) -> None:
    methods = collect([spoil(runs / "bicubic", lambda r: r.pop("sources"), tmp_path / "run")])
    assert "keys1981cubic" in keys(methods) and "wang2004ssim" in keys(methods)
    assert any("names no sources" in note for note in methods.notes)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(sources=5, licences=[], software={}),
        lambda r: r["plan"]["model"].update(spec=None, label=None, options=[1]),
        lambda r: r["plan"].update(seed={"a": 1}, draws=None, dtype=[]),
        lambda r: r["plan"]["data"].pop("fingerprint"),
        lambda r: r["plan"].pop("protocol"),
    ],
)
def test_a_record_that_names_too_little_is_refused(
    change: Callable[[dict[str, Any]], None], runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(RfbenchError, match="run it again"):
        collect([spoil(runs / "bicubic", change, tmp_path / "run")])


def test_an_unfinished_run_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "bicubic", tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(RfbenchError, match="expected a finished run; run the same command again"):
        collect([RunFolder(tmp_path / "run")])


# --- BibTeX ---------------------------------------------------------------------------------------------------


def test_bibtex_as_people_write_it() -> None:
    text = """Some words. @Article{ a:1 , Author = "O'Neil, {\\'E}. and Others", title={The {GAN} "x" } , year=2020,}
    @string{x = {y}} @comment{nothing} @misc{broken, title = {no end
    @book(b, title = {round}) @inproceedings{c, title = {Last}, pages = {1--2} }"""
    first, *rest = parse(text)
    assert first == Entry(
        "article", "a:1", (("author", "O'Neil, {\\'E}. and Others"), ("title", 'The {GAN} "x"'), ("year", "2020"))
    )
    assert [e.key for e in rest] == ["b", "c"]
    assert parse("@misc{x, title = {a}} @misc{c, title = {Last}}")[1].key == "c"
    assert (
        not parse("@misc{x, title = {a \\} b}}")
        and not parse("@misc{x, ti}tle = {a}}")
        and not parse("@" * 1000)
        and not parse("@a{b,c=" + "{" * 5000)
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ('M{\\"u}ller and {\\v{S}}imon', True),
        ("\\emph{Nature} 5 \\& 6", True),
        ("\\input{x}", False),
        ("\\csname write\\endcsname", False),
        ("\\immediate\\write18{rm}", False),
        ("\\url {x}\\def\\a{b}", False),
        ("50 % off", False),
        ("a_b & c", False),
    ],
)
def test_commands_in_foreign_entries_are_harmless_or_plain(value: str, kept: bool) -> None:
    (entry,) = of_part(f"@misc{{x, title = {{{value}}}}}", "model", "m")
    assert (entry.field("title") == value) == kept
    assert kept or not re.search(r"\\(input|csname|immediate|write|def)(?![A-Za-z])", entry.field("title"))


def test_two_works_of_one_key_stay_two(runs: Path, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["sources"]["model"]["citation"] = "@misc{wang2004ssim, title = {Not that one}}"

    methods = collect([spoil(runs / "bicubic", change, tmp_path / "run")])
    titles = {e.key: e.field("title") for e in methods.works}
    assert titles["wang2004ssima"] == "Not that one" and titles["wang2004ssim"].startswith("Image Quality")


def test_names_and_years_for_a_text_without_references() -> None:
    shown = {k: e.shown() for k, e in library().items()}
    assert shown["wang2002uqi"] == "Wang and Bovik 2002" and shown["keys1981cubic"] == "Keys 1981"
    assert shown["binkowski2018kid"] == "Bińkowski et al. 2018" and shown["rfbench"] == "The rfbench developers"
    assert plain(library()["cornebise2022worldstrat"].field("author")).split(" and ")[1] == "Oršolić, Ivan"
    assert bibtex.of_part("", "model", "m") == []


# --- the command ----------------------------------------------------------------------------------------------


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cite", str(runs)], standalone_mode=False) == 0
    assert capsys.readouterr().out.startswith("Models were run and scored with rfbench ")
    out = tmp_path / "references.bib"
    assert (
        cli.main(["cite", str(runs / "bicubic"), "--format", "bibtex", "--out", str(out)], standalone_mode=False) == 0
    )
    printed = capsys.readouterr()
    assert not printed.out and "note: lpips_alex was not computed" in printed.err
    assert parse(out.read_text())[0].key == "rfbench" and "noisy2026" not in out.read_text()
