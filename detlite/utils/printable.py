"""Text that comes from file names and annotations, for where only whole characters will do."""


def printable(text: str) -> str:
    """The text with lone surrogates, which stand for bytes that are no UTF-8, written out in ASCII.

    Encoders raise at such characters, and OpenCV ends the process.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
