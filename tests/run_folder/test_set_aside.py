"""The rows that a run is measured on, in a file."""

from pathlib import Path

import pytest

from hf_noise_al.files.run_names import SET_ASIDE_FILE
from hf_noise_al.run_folder.set_aside import read_set_aside, write_set_aside


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_set_aside(tmp_path) == []
    write_set_aside(tmp_path, [])
    assert not (tmp_path / SET_ASIDE_FILE).exists()
    write_set_aside(tmp_path, {7, 3})
    assert read_set_aside(tmp_path) == [3, 7]


@pytest.mark.parametrize("text", ["", "{}", "[1.5]", "[true]", "[-1]", "[" * 5000])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / SET_ASIDE_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"Cannot read .*set_aside\.json.* Restore it"):
        read_set_aside(tmp_path)
