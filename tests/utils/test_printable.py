import pytest

from detlite.utils.printable import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("漢ä", "漢ä"),
        ("caf\udce9.jpg", "caf\\udce9.jpg"),
        ("\ud800", "\\ud800"),
    ],
)
def test_only_lone_surrogates_are_written_out(text, expected):
    assert printable(text) == expected
