"""The one exception a user is meant to read: what was wrong, where, and what to do."""


class DPMError(RuntimeError):
    """A user's mistake or a missing resource, in one line; the tools print it without traceback and exit with 2.

    A ``DataLoader`` raises a worker's error again with the worker's traceback as its message; of that only the message
    itself is kept, so it reads the same with and without workers.
    """

    def __init__(self, message: object = "") -> None:
        text, kind = str(message), type(self)
        if text.startswith(f"Caught {kind.__name__} in "):
            text = text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()
        super().__init__(text)


class UnreadableImage(DPMError):
    """An image file that is there and cannot be decoded; ``data.corrupt skip`` replaces it by another."""
