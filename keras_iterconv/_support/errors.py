"""The base class of the library's errors that a user can correct."""


class CorrectableError(Exception):
    """An error that the user can correct; the message says how, in one line.

    The commands print the message without a traceback. A subclass also has the built-in class that
    fits, for example `ValueError`.
    """
