"""Errors that a user can mend: each message says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable


class DinoBloomError(Exception):
    """Base of all errors raised for input, files or settings that a user can mend."""


class ImageError(DinoBloomError, ValueError):
    """A picture cannot be used; the message names the file and the remedy."""


class InputError(DinoBloomError):
    """What the user asked for cannot be done: a grouping, an option or a table that does not fit the files."""


class StudyError(DinoBloomError):
    """A study folder cannot be opened, read or written."""


class StudyHeldError(StudyError):
    """Another process holds the study for writing."""


class DownloadError(DinoBloomError):
    """A file cannot be fetched.

    Parameters
    ----------
    message : str
        What failed, with the address.
    status : int, optional
        What the server answered (404), where it answered at all.
    unreachable : bool
        Whether no byte came.
    """

    def __init__(self, message: str, status: int | None = None, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.unreachable = unreachable


class EncoderError(DinoBloomError):
    """An encoder or a checkpoint cannot be used."""


class AtlasError(DinoBloomError):
    """A reference atlas does not fit the encoder or the crops, or cannot be read."""


class LicenceError(InputError):
    """What the user asked for stands under terms that have to be accepted first.

    Parameters
    ----------
    question : str
        The terms, as they are put to a person.
    how : str
        How to accept them, or do without.
    accept : callable, optional
        Takes the acceptance down, where that is no setting of what was asked for.
    """

    def __init__(self, question: str, how: str, accept: Callable[[], None] | None = None) -> None:
        super().__init__(f"{question} {how}")
        self.question = question
        self.accept = accept
