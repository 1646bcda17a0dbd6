"""The one exception a user is meant to read: what was wrong, where, and what to do."""


class DPMError(RuntimeError):
    """A user's mistake or a missing resource, in one line.

    ``tools/main.py`` prints the message without a traceback and exits with code 2.

    A ``DataLoader`` raises a worker's error again with the worker's traceback as its message; of that
    only the message itself is kept, so it reads the same with and without workers.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_without_worker_traceback(str(message), type(self)))


class UnreadableImage(DPMError):
    """An image file that is there and cannot be decoded; ``data.corrupt skip`` replaces it by another."""


def _without_worker_traceback(message, kind):
    if not message.startswith(f"Caught {kind.__name__} in "):
        return message
    return message.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()
