"""The root of all errors that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something that was given or is missing, not a fault of the program: a file, a value, a package, a device.

    The message is one sentence that names the file, the key and the value, says what is expected, and how to mend it.
    The command line shows it without a traceback and exits with 2.
    """


def error_sentence(error: Exception) -> str:
    """What an error says to a user: the system's own word on a file, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class ConfigError(UserError, ValueError):
    """A setting or an entry of a file that is unknown, of the wrong type or out of range."""


class InputError(UserError, ValueError):
    """A frame, mask or calibration that cannot be used. ``kind`` is the counter it is counted under."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an exception says, in one line: the first line alone is often only a heading."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
