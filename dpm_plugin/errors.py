"""The one exception a user is meant to read: what was wrong, where, and what to do."""


class DPMError(RuntimeError):
    """A user's mistake or a missing resource, in one line.

    ``tools/main.py`` prints the message without a traceback and exits with code 2.
    """
