"""Csv files as people have them: read with the right values, or refused with file, line and what to do."""

import logging
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, Value

from hf_noise_al.loading.csv_files import read_csv_files
from hf_noise_al.loading.data import load_data, load_pool
from hf_noise_al.pool.hashes import content_hash
from hf_noise_al.settings.arguments import DataArguments


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hf_noise_al")
    return caplog


def pool(path: Path, labels: tuple[str, ...] = ("label",), **settings: Any) -> Dataset:
    return load_pool(DataArguments(dataset_name=str(path), **settings), labels).pool


@pytest.mark.parametrize("before", ["1", "", "0.5", "true"])
def test_labels_that_are_text_from_row_10000_on_are_text(path: Path, before: str) -> None:
    path.write_text("text,label\n" + f"a,{before}\n" * 10_000 + "b,cat\n" * 100)
    assert pool(path)["label"][:] == [before or None] * 10_000 + ["cat"] * 100


def test_ordinary_files_are_what_datasets_makes_of_them(path: Path) -> None:
    rows = (f'{row},"a, b {row}",{row / 7!r},{row % 2 == 0},{row % 5 or ""},,{row % 3 or "NA"}\n' for row in range(500))
    path.write_text("id,text,number,truth,gaps,empty,words\n" + "".join(rows))
    before = datasets.load_dataset("csv", data_files=str(path), split="train")
    now = pool(path)
    assert now.features == before.features
    assert content_hash(now) == content_hash(before), "stored runs know their rows by it"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_found_and_told(path: Path, log: pytest.LogCaptureFixture, separator: str) -> None:
    path.write_text(f"text{separator}label\na, b{separator}1\nc{separator}2\n")
    assert pool(path).to_dict() == {"text": ["a, b", "c"], "label": [1, 2]}
    assert f"{path}: cells are separated by" in log.text and repr(separator) in log.text


def test_a_tsv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("text\tlabel\na\t1\n")
    assert pool(tmp_path / "rows.tsv").to_dict() == {"text": ["a"], "label": [1]}


def test_numbers_with_a_decimal_comma_are_numbers_where_semicolons_separate(
    path: Path, log: pytest.LogCaptureFixture
) -> None:
    path.write_text("size;label\n3,5; 4 \n4;5\n;6\n")
    assert pool(path).to_dict() == {"size": [3.5, 4.0, None], "label": [4, 5, 6]}
    assert "numbers with a decimal comma in `size`, such as 3,5" in log.text
    path.write_text('size\n"3,5"\n4\n')
    assert pool(path)["size"][:] == ["3,5", "4"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(path: Path, encoding: str) -> None:
    path.write_bytes("größe,label\nä,1\n".encode(encoding))
    assert pool(path).to_dict() == {"größe": ["ä"], "label": [1]}


def test_cells_of_several_lines_and_windows_ends_of_lines(path: Path) -> None:
    path.write_bytes(b'text,label\r\n"a\r\nb",1\r\n\r\n"c ""d""",2\r\n,\r\n')
    assert pool(path).to_dict() == {"text": ["a\r\nb", 'c "d"', None], "label": [1, 2, None]}


def test_an_index_that_pandas_wrote_and_short_rows(path: Path) -> None:
    path.write_text(",text,label\n0,a,x\n1,b\n")
    assert pool(path).to_dict() == {"Unnamed: 0": [0, 1], "text": ["a", "b"], "label": ["x", None]}


def test_codes_stay_as_they_were_typed(path: Path) -> None:
    path.write_text("zip,phone,label\n01067,+49,01\n10115,30,02\n")
    assert pool(path).to_dict() == {"zip": ["01067", "10115"], "phone": ["+49", "30"], "label": ["01", "02"]}


@pytest.mark.parametrize("cell", ["", "NA"])
def test_a_pool_without_any_label_has_none(path: Path, cell: str) -> None:
    path.write_text(f"text,label\na,{cell}\nb,{cell}\n")
    assert pool(path)["label"][:] == [None, None]


def test_words_for_missing_values_are_missing_among_numbers_and_as_labels_alone(
    path: Path, log: pytest.LogCaptureFixture
) -> None:
    path.write_text("text,age,label\nNA,NA,yes\n null ,4,NA\nb,n/a,None\n")
    assert pool(path).to_dict() == {
        "text": ["NA", " null ", "b"],
        "age": [None, 4.0, None],
        "label": ["yes", None, None],
    }
    told = [record.getMessage() for record in log.records if "missing" in record.getMessage()]
    assert told == [
        f"{path}: cells that are read as missing: 2 of `age` (NA, n/a); 2 of the label `label` (NA, None). If NA is a "
        "class, list it in `class_names`."
    ]
    listed = pool(path, class_names=["yes", "NA"])
    assert listed["label"][:] == ["yes", "NA", None]
    assert pool(path, labels=("answer",))["label"][:] == ["yes", "NA", "None"], "it is not the label column"


def test_a_class_na_among_numbers_makes_them_text(path: Path) -> None:
    path.write_text("text,label\na,1\nb,NA\n")
    assert pool(path)["label"][:] == [1.0, None]
    assert pool(path, class_names=["1", "NA"])["label"][:] == ["1", "NA"]


def test_splits_of_a_folder_have_one_type_together_and_forms_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,1\nb,2\n")
    (tmp_path / "validation.csv").write_bytes("text;label\nc;x\n".encode("utf-16"))
    loaded = load_data(DataArguments(dataset_name=str(tmp_path)), ["label"])
    train, evaluation = loaded.pool, loaded.evaluation
    assert train["label"][:] == ["1", "2"]
    assert evaluation[""].to_dict() == {"text": ["c"], "label": ["x"]}


def test_files_of_one_split_are_read_in_their_order(tmp_path: Path) -> None:
    texts = {"1": "text,label\na,1\n", "2": "label;text\nx;b\n", "3": "text,label\n", "4": "text,label\nc,\n"}
    paths = []
    for name, text in texts.items():
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text(text)
    rows = read_csv_files({"train": paths}, ["label"])["train"]
    assert rows.to_dict() == {"text": ["a", "b", "c"], "label": ["1", "x", None]}
    paths[1].write_text("text\nb\n")
    message = f"{paths[1]} has the columns text, and {paths[0]}, of the same split, has text, label. Give the files"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_csv_files({"train": paths}, ["label"])


def test_a_folder_that_says_how_its_files_are_read_is_left_to_datasets(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a;01\nb;02\n")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  sep: ';'\n  names: [text, label]\n---\n"
    )
    assert pool(tmp_path).to_dict() == {"text": ["a", "b"], "label": [1, 2]}


def test_a_split_without_rows_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,1\n")
    (tmp_path / "validation.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match="The evaluation split of .* is empty"):
        load_data(DataArguments(dataset_name=str(tmp_path)), ["label"])


def test_text_stays_on_the_disk(path: Path) -> None:
    path.write_text("text,label\na,1\n")
    rows = pool(path)
    assert rows.cache_files, "memory-mapped"
    assert rows.features["label"] == Value("int64")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text,label\nnaïve,1\n".encode("latin-1"), "line 2: this is not UTF-8 text (the byte 0xef, as in Latin-1)."),
        (b"text,text\na,b\n", "line 1: the column `text` stands twice in the header"),
        (b"text,label\n" + b"a,1\n" * 12_000 + b"a,b,1\n", "line 12002: found 3 cells, and the header has 2"),
        (b'text,label\na,1\n"b,2\nc,3\n', "line 3: a double quote is opened in the row that begins here and never"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_line(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"{path}, {message}")):
        pool(path)
