"""Text that is not ours stays on its line and does nothing to a terminal."""

import pytest

from hf_noise_al.files.shown_text import listed, one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a name, 数据 😀 é", "a name, 数据 😀 é"),
        ("two\nlines\r\tand \u2028more", "two lines  and  more"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("\x9b31m\u202eabc\udc80", r"\x9b31m\u202eabc\udc80"),
        (17, "17"),
        ("", ""),
        ("a" * 80, "a" * 80),
        ("a" * 81, "a" * 77 + "..."),
    ],
)
def test_one_printable_line_is_made_of_anything(text: object, shown: str) -> None:
    assert one_line(text) == shown


def test_lines_that_a_text_has_stay_and_what_a_terminal_obeys_does_not() -> None:
    assert printable("two\nlines \x1b[31m\r\n") == "two\nlines \\x1b[31m \n"


def test_a_list_of_names_ends_where_it_gets_long() -> None:
    assert listed(["a", "b\nc"]) == "a, b c"
    assert listed(range(60), 3) == "0, 1, 2, ..."
    assert listed([]) == ""
