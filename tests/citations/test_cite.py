"""`tapct cite`: what it prints is BibTeX, and nothing that ships is without a citation or a reason."""

import re
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml

from tapct import citations
from tapct.citations.works import entries_of
from tapct.cli import main
from tapct.encoders import list_declared
from tapct.errors import RecordError
from tapct.records import write_record
from tests.leaderboard.results import record

REPOSITORY = Path(__file__).parents[2]
NEEDED = {
    "article": {"title", "author", "journal", "year"},
    "inproceedings": {"title", "author", "booktitle", "year"},
    "misc": {"title", "author", "year"},
    "software": {"title", "author", "year"},
}


def shipped(group: str) -> list[str]:
    return sorted(point.name for point in entry_points(group=group) if point.dist and point.dist.name == "tapct-bench")


def fields_of(entry: str) -> dict[str, str]:
    """Reads one entry as BibTeX does: a name, an equals sign, and braces that match."""
    fields, place = {}, entry.index(",") + 1
    while found := re.compile(r"\s*(\w+)\s*=\s*\{").match(entry, place):
        depth, place = 1, found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(entry[place], 0)
            place += 1
        fields[found[1]] = entry[found.end() : place - 1]
        place = entry.find(",", place) + 1 or len(entry)
    return fields


def printed(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["tapct", "cite", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", shipped("tapct.tasks"))
def test_every_task_that_ships_has_a_citation_or_says_why_not(name):
    cited = citations.of_task(name)
    assert cited.entries or (cited.why and "states no citation" not in cited.why)


@pytest.mark.parametrize("name", [*shipped("tapct.encoders"), *list_declared()])
def test_every_encoder_that_ships_has_a_citation_or_says_why_not(name):
    cited = citations.of_encoder(name)
    assert cited.entries or (cited.why and "no BibTeX of it is known" not in cited.why)


def test_every_entry_has_what_its_kind_needs():
    of_tasks = [citations.of_task(name).entries for name in shipped("tapct.tasks")]
    for entries in (citations.works(), *of_tasks):
        for key, entry in entries.items():
            kind, fields = re.match(r"@(\w+)", entry)[1], fields_of(entry)
            assert fields.keys() >= NEEDED[kind], key
            assert re.fullmatch(r"20[012]\d", fields["year"]), key
            # An arXiv number begins with year and month; a paper that came later says so in a note.
            if (number := fields.get("eprint")) is not None:
                assert number[:2] == fields["year"][2:], key


def test_a_record_cites_its_data_its_encoder_eva_and_the_benchmark(monkeypatch, capsys, tmp_path):
    place = write_record(record("curia", "luna16"), tmp_path / "luna16" / "curia")
    other = write_record(record("suprem", "luna16"), tmp_path / "luna16" / "suprem")
    keys = {"setio2017luna16", "armato2011lidc", "armato2015lidcidri", "kaiko.ai2024eva", "tapctbench"}
    assert entries_of(printed(monkeypatch, capsys, str(place))).keys() == keys | {"dancette2025curia"}
    both = printed(monkeypatch, capsys, str(place.parent), str(other))
    assert entries_of(both).keys() == keys | {"dancette2025curia", "li2024suprem"}
    assert both.count("@article{setio2017luna16,") == 1  # twice would be an error of BibTeX's
    assert printed(monkeypatch, capsys, str(tmp_path)) == both


def test_what_has_no_citation_says_so_and_nothing_is_made_up(monkeypatch, capsys, tmp_path):
    unknown = record("curia", "luna16", card={"name": "hers", "reference": "hers@clinic.org, unpublished"})
    said = printed(monkeypatch, capsys, str(write_record(unknown, tmp_path / "experiment")), "osic_fvc", "chance")
    assert "% the encoder hers: no BibTeX of it is known here; its card says: hers(at)clinic.org, unpublished" in said
    assert "% the data of osic_fvc: no work was found" in said
    assert "% the encoder chance: a baseline of TAP-CT Bench" in said
    outside = [line for line in said.splitlines() if line and line[0] not in " @}%"]
    assert not outside


def test_neither_a_record_nor_a_name_is_an_error(monkeypatch, tmp_path):
    from tapct.citations.commands import cite

    with pytest.raises(RecordError, match=r"'crua' is neither a record.*Did you mean 'curia'"):
        cite(["crua"])
    with pytest.raises(RecordError, match="there is no record at"):
        cite([str(tmp_path / "absent" / "record.json")])


def test_citation_cff_says_what_the_bibtex_says():
    cff = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    ours = fields_of(citations.works()["tapctbench"])
    assert cff["title"] == ours["title"].replace("{", "").replace("}", "")
    assert [author["name"] for author in cff["authors"]] == [ours["author"].strip("{}")]
    assert (cff["version"], cff["license"]) == (ours["version"], ours["license"])
    assert ours["version"] == version("tapct-bench")
    papers = {paper.get("title") for paper in cff["references"]}
    assert papers == {
        "eva: Evaluation framework for pathology foundation models",
        "TAP-CT: 3D Task-Agnostic Pretraining of Computed Tomography Foundation Models",
    }
