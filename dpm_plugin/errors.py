"""The one exception a user is meant to read: what was wrong, where, and what to do."""


class DPMError(RuntimeError):
    """A user's mistake or a missing resource, in one line.

    ``tools/main.py`` prints the message without a traceback and exits with code 2.

    A ``DataLoader`` raises a worker's error again with the worker's traceback as its message; of that
    only the message itself is kept, so it reads the same with and without workers.
    """

    def __init__(self, message=""):
        super().__init__(_without_worker_traceback(str(message)))


def _without_worker_traceback(message):
    if not message.startswith("Caught DPMError in "):
        return message
    return message.rpartition(f"\n{DPMError.__module__}.DPMError: ")[2].strip()
