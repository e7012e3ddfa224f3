"""Splits and lists that third parties wrote: what is read, what is refused, and that no name leaves its folder."""

import hashlib
from pathlib import Path

import pytest

from tapct.errors import TaskError
from tapct.features.embed import target_of
from tapct.names import LONGEST_NAME, alike, file_in
from tapct.tasks.nodules import NoduleColumns, read_nodules
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.splits import FoldTable, SplitTable, read_exclusions, read_split

SHIPPED = Path(__file__).parents[2] / "tapct" / "tasks"
HEAD = "case,patient,split"
LUNA = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192_1"

HASHES = {
    "amos22": "4bcdf142a49e5baca90b2e5b3147690d3035f8354eb110b603a89e3ee58c501a",
    "kits23": "c2c5cbdbd274b1bbd884912be155cfea35308db03b08d04a3faa07b06811ed6b",
    "lits17": "e01016ce37f9f05df67592fbfe8c83ece719fa8965c5c82e726b928a428e20d3",
    "luna16": "6fc06526bf8781f61cf62134a1ed0dbd5bb0083139b83570590326a498d30418",
    "luna25": "fd6e6e4f70c718ee54a054f80b05a48bcd6d5d8a300b4554fc9d1d9565a19226",
    "msd_pancreas": "86a6139e075c4e99ddc8d9a659e4ad593833cfb6b173e449d820a1f4b22b3e2c",
    "quickstart": "815503f46ff3c7cfb5125587d227f841f5a539a0a06db865b9b67bd2af98093a",
    "btcv": "47574aa581b728a9aa740d140b87b491b8183a2c20e294edfce85c3e1406521e",
    "flare22": "f8e4c03243d662a47be082ced25e77f019123554f1fb61cd9241b5ebe684e3a4",
    "word": "bf153b12142569d122335af84b27854e23eed10b53b6106d3783f264d98851df",
    "lits17-eva": "4bedb8da03638c3d54c0ecb4e44bc66d428cfc834cbd8b76764823c8a4020fdc",
    "kits23-eva": "2baf0899e814213e96105903ed90c60f9eddb89db180e2d44acafb7382fca542",
    "msd_pancreas-eva": "86a6139e075c4e99ddc8d9a659e4ad593833cfb6b173e449d820a1f4b22b3e2c",
    "luna25-eva": "fe39d030d631a2188a4c8c6d62c754f159926294a31810d93400f5771e4b8a8f",
    "totalsegmentator": "7f4f3f66cf08393db196d711ff32c31adfeeb89fd2982e48c66514c3cf1749b1",
}
"""Of the shipped splits: a record names them, so the way to read a table must not change them."""


def read(folder: Path, content: str | bytes) -> SplitTable:
    path = folder / "split.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SplitTable.read(path)


@pytest.mark.parametrize("task", HASHES)
def test_the_hashes_of_the_shipped_splits_stay(task):
    assert SplitTable.read(SHIPPED / "splits" / f"{task}.csv").sha256 == HASHES[task]


PLAIN = f"{HEAD}\na,p,train\nb,q,test\n"
SAME = {
    "byte order mark": "﻿" + PLAIN,
    "Windows": PLAIN.replace("\n", "\r\n"),
    "old Mac": PLAIN.replace("\n", "\r"),
    "no line end": PLAIN.rstrip(),
    "blank lines": PLAIN.replace("\n", "\n\n") + "\r\n\n",
    "quoted": '"case","patient","split"\n"a","p","train"\n"b","q","test"\n',
    "comments": f'# from, here\n#\n\n# and "there"\n{PLAIN}',
    "marked comments": "﻿# from here\r\n" + PLAIN.replace("\n", "\r\n"),
    "another order, one more column": "site,split,case,patient\nx,test,b,q\n,train,a,p\n",
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME)
def test_what_programs_make_of_a_table_does_not_matter(content, tmp_path):
    table = read(tmp_path, content)
    assert table.cases == {"train": {"a": "p"}, "val": {}, "test": {"b": "q"}}
    assert table.sha256 == hashlib.sha256(b"a,p,train\nb,q,test").hexdigest()


@pytest.mark.parametrize(
    "name", [LUNA, "patient/series", "PETCT_01/03-23-2003-CT Ganz  primär", "Jo\u0308rg", "a,b", '"x"', "..a", "ab:c"]
)
def test_odd_names_are_kept_as_they_are(name, tmp_path):
    table = SplitTable.of([(name, "p", "train"), ("z", "o'Neill", "test")], "", where="here")
    assert read(tmp_path, table.to_csv("made by hand")).cases == table.cases
    assert file_in(tmp_path, name, ".png").is_relative_to(tmp_path)


def test_a_comma_in_a_name_is_no_other_table():
    tables = [SplitTable.of([row], "", where="here") for row in (("a,b", "c", "train"), ("a", "b,c", "train"))]
    assert tables[0].sha256 != tables[1].sha256


MALFORMED = {
    "patient on two sides": ("a,p,train\nb,p,test", "patient p is in train and in test"),
    "case twice": ("a,p,train\na,p,train", "case a is there twice"),
    "unknown split": ("a,p,trian", "unknown split 'trian'"),
    "split in capitals": ("a,p,Train", "unknown split 'Train'"),
    "short row": ("a,p,train\nb,q", "line 3 has 2 values, and the header 3"),
    "long row": ("a,p,train\nb,q,test,x", "line 3 has 4 values, and the header 3"),
    "row of blanks": ("a,p,train\n  ", "line 3 has 1 values"),
    "row of commas": ("a,p,train\n,,", "the case '' is empty"),
    "comment below": ("a,p,train\n# b,q,test", "line 3 is a comment. Move it above the header"),
    "case commented out": ("#a,p,train\nb,q,test", "line 2 is a comment"),
    "quote not closed": ('a,p,train\n"b,q,test', "not CSV text"),
    "text behind a quote": ('a,p,train\n"b"x,q,test', "not CSV text"),
    "empty patient": ("a,,train", "the patient '' of case a is empty"),
    "blank patient": ("a, ,train", "the patient ' ' of case a is empty"),
    "only a header": ("", "a header and no rows"),
}


@pytest.mark.parametrize(("rows", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_split_is_refused(rows, message, tmp_path):
    with pytest.raises(TaskError, match=message) as raised:
        read(tmp_path, f"{HEAD}\n{rows}")
    assert "split.csv" in str(raised.value)


FILES = {
    "nothing": (b"", "lacks the columns case, patient, split; it has: nothing"),
    "only comments": (b"# here\n", "lacks the columns"),
    "a column is missing": (b"case,split\na,train\n", "lacks the columns patient"),
    "column twice": (b"case,patient,split,case\na,p,train,b\n", "has the column case twice"),
    "semicolons": (b"case;patient;split\na;p;train\n", "separated by commas"),
    "UTF-16": (PLAIN.encode("utf-16"), "not CSV text in UTF-8"),
    "Latin-1": (f"{HEAD}\nJörg,p,train\n".encode("latin-1"), "not CSV text in UTF-8"),
    "a field without end": (f'{HEAD}\n"{"a" * 200_000}",p,train\n'.encode(), "not CSV text"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_what_is_no_split_is_refused(content, message, tmp_path):
    with pytest.raises(TaskError, match=message):
        read(tmp_path, content)
    with pytest.raises(TaskError, match="there is no split file"):
        SplitTable.read(tmp_path / "none.csv")


ALIKE = {
    "case": ("Case1", "case1"),
    "blank": ("case 1", "case1"),
    "two blanks": ("case 1", "case  1"),
    "composed": ("J\u00f6rg", "Jo\u0308rg"),
    "full width": ("\uff21\uff11", "A1"),
    "ligature": ("\ufb01le", "file"),
    "sharp s": ("Stra\u00dfe", "STRASSE"),
    "superscript": ("x\u00b2", "x2"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_names_that_may_be_taken_for_one_are_refused(one, other, tmp_path):
    with pytest.raises(TaskError, match=r"the cases .* differ by blanks, case or Unicode form alone"):
        read(tmp_path, f"{HEAD}\n{one},p,train\n{other},q,train\n")
    with pytest.raises(TaskError, match=r"the patients .* differ by blanks, case or Unicode form alone"):
        read(tmp_path, f"{HEAD}\na,{one},train\nb,{other},test\n")
    assert alike([one, "another", one]) is None


LEAVES = (
    "../x",
    "..",
    ".",
    "a/../b",
    "a/..",
    "./a",
    "/etc/passwd",
    "a//b",
    "a/",
    "a\\b",
    "..\\x",
    "C:\\x",
    "C:x",
    "~/x",
    "a /b",
)
UNSEEN = (
    "a\0b",
    "a\tb",
    "a\u200bb",
    "a\u202eb",
    "\ufeffa",
    "a\u00a0b",
    "a\u2028b",
    " a",
    "a ",
    "#a",
    "a" * (LONGEST_NAME + 1),
)


@pytest.mark.parametrize("name", [*LEAVES, *UNSEEN], ids=repr)
def test_a_case_that_leads_out_of_its_folder_or_cannot_be_seen_is_refused(name, tmp_path):
    with pytest.raises(TaskError, match="here: the case "):
        SplitTable.of([(name, "p", "train")], "", where="here")
    if not name.startswith("#"):
        with pytest.raises(ValueError, match="no file can be called after"):
            file_in(tmp_path, name, ".png")
    with pytest.raises(TaskError):  # as csv quotes it, if it must
        Quickstart(tmp_path, "train", _written(tmp_path, name))


@pytest.mark.parametrize("name", UNSEEN[:-2], ids=repr)
def test_a_patient_that_cannot_be_seen_is_refused(name):
    with pytest.raises(TaskError, match=r"here: the patient .* of case a"):
        SplitTable.of([("a", name, "train")], "", where="here")


def _written(folder: Path, name: str) -> Path:
    (folder / "split.csv").write_text(f'{HEAD}\n"{name}",p,train\n', encoding="utf-8", newline="")
    return folder / "split.csv"


def test_the_file_of_an_embedding_stays_in_its_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = tmp_path / "out"
    for path in ("../ct.nii.gz", "ct.nii.gz", "..", "../here/../ct.mha", "."):
        assert target_of(Path(path), out).resolve().is_relative_to(out)


# -- Other lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,reason\na,x\n#b,y\n", "line 3 is a comment"),
        ("case,reason\na,x\nb\n", "line 3 has 1 values"),
        ("case,reason\na,x\na,y\n", "case a is there twice"),
        ("case\na\n", "lacks the columns reason"),
    ],
)
def test_a_malformed_list_of_exclusions_is_refused(content, message, tmp_path):
    path = tmp_path / "exclusions.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaskError, match=message):
        read_exclusions(path)


def test_exclusions_are_read_and_need_not_be_there(tmp_path):
    assert read_exclusions(tmp_path / "none.csv") == {}
    (tmp_path / "some.csv").write_bytes('﻿# why\r\ncase,reason\r\na,"one, two"\r\n\r\n'.encode())
    assert read_exclusions(tmp_path / "some.csv") == {"a": "one, two"}


@pytest.mark.parametrize("row", ["b,s,p,1,2,3", "b,s,p,1,2,3,1,9", "#b,s,p,1,2,3,1"])
def test_a_malformed_list_of_nodules_is_refused(row, tmp_path):
    columns = NoduleColumns("case", "patient", "series", "x", "y", "z", "label")
    path = tmp_path / "nodules.csv"
    path.write_text(f"# here\n{','.join(c for c in columns if c)}\na,s,p,1,2,3,1\n{row}\n", encoding="utf-8")
    with pytest.raises(TaskError, match=r"nodules\.csv: line 4 "):
        read_nodules(path, columns)


FOLDS = "case,patient,fold_0,fold_1\na,p,0,1\nb,p,0,1\nc,q,1,0\n"


def test_folds_are_read_and_every_case_trains_and_is_reported(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("# where it is from\n" + FOLDS, encoding="utf-8")
    table = read_split(path)
    assert isinstance(table, FoldTable)
    assert table.counts == {"train": 3, "val": 0, "test": 3}
    assert (table.repeats, table.number, table.folds[1]) == (2, 2, {"p": 1, "q": 0})
    path.write_text(table.to_csv("again"), encoding="utf-8")
    assert read_split(path).sha256 == table.sha256
    path.write_text(FOLDS.replace("c,q,1,0", "c,q,1,1").replace("p,0,1", "p,0,0"), encoding="utf-8")
    assert read_split(path).sha256 != table.sha256
    assert table.without({"a"}).folds[0] == {"p": 0, "q": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FOLDS.replace("b,p,0,1", "b,p,1,1"), "patient p is in two folds of repeat 0"),
        (FOLDS.replace("c,q,1,0", "c,q,2,0"), "every repeat must have the same folds"),
        (FOLDS.replace("c,q,1,0", "c,q,0,0"), "every repeat must have the same folds"),
        (FOLDS.replace("c,q,1,0", "c,q,x,0"), "fold_0 of case c is 'x'"),
        (FOLDS.replace("b,p", "a,p"), "case a is there twice"),
        (FOLDS.replace("fold_1", "fold_3"), "lacks the columns fold_1"),
        (FOLDS.replace("c,q", "c,P"), "differ by blanks, case or Unicode form"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path, text, message):
    path = tmp_path / "folds.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=message):
        read_split(path)
