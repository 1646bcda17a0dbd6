"""Early stopping: training ends where its evaluations do not get better."""


class OutOfPatience(Exception):
    """Ends the training loop in order; its text is for the screen."""


class Patience:
    """Counts the evaluations since the best one.

    Args:
        limit: so many in a row without a better one are enough. Default: 0, no number is.

    Attributes:
        waited: the count so far; checkpoints record it.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit, self.waited = limit, 0

    def count(self, is_better: bool) -> None:
        """Take in an evaluation: ``is_better`` than all before, by rank-1 and of equal ones by mAP."""
        self.waited = 0 if is_better else self.waited + 1

    @property
    def is_over(self) -> bool:
        return 0 < self.limit <= self.waited

    def __str__(self) -> str:
        return f"{self.waited} evaluations without a better rank-1 (train.patience {self.limit})"
