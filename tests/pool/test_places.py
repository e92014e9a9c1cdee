"""What messages call a row."""

from pathlib import Path

from datasets import Dataset

from hf_noise_al.pool.places import Place, Source, row_at


def test_a_row_is_told_with_what_is_known_of_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('key,text\nA,"two\nlines"\n\nB,b\n')
    pool = Dataset.from_dict({"key": ["A", "B\n"], "text": ["two\nlines", "b"]})
    assert row_at("the pool", 1) == row_at(Place("the pool"), 1) == "row 1"
    assert row_at(Place("the pool", Source(pool)), 1) == "row 1"
    assert row_at(Place("the pool", Source(pool, id_column="key")), 1) == "row 1 (key B )"
    assert row_at(Place("the pool", Source(pool, file, "key")), 1) == "row 1 (mine.csv, line 5, key B )"
    assert row_at(Place("the pool", Source(pool, file)), 0) == "row 0 (mine.csv, line 2)"
    assert row_at(Place("the pool", Source(pool, file)), 7) == "row 7"


def test_a_place_is_its_name() -> None:
    assert f"In {Place('the pool')}" == "In the pool" and Place("the pool") == "the pool"


def test_a_file_without_lines_or_one_that_is_gone_is_named_alone(tmp_path: Path) -> None:
    pool = Dataset.from_dict({"text": ["a"]})
    for name in ("mine.parquet", "gone.csv"):
        assert row_at(Place("the pool", Source(pool, tmp_path / name)), 0) == f"row 0 ({name})"
