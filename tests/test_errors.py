import pytest

from detlite.errors import ConfigError, DataError


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_messages_can_be_printed_whatever_name_they_quote(kind):
    told = str(kind("file 'a\x1b[31m\udce9\0' is odd\nline two, Hündchen \u5927"))
    assert told == "file 'a\\x1b[31m\\udce9\\x00' is odd\nline two, Hündchen \u5927"
    told.encode()
