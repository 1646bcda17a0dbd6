"""One number measured several times, over seeds or runs: its mean ± sample standard deviation."""

import statistics
from collections.abc import Collection


def mean(values: Collection[float]) -> float | None:
    """None of no values."""
    return statistics.mean(values) if values else None


def deviation(values: Collection[float]) -> float | None:
    """Sample standard deviation; None below two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def mean_spread(
    values: Collection[float], *, scale: float = 1.0, sign: str = "", missing: str = "n/a", digits: int = 1
) -> str:
    """ "50.0 ± 10.0": no spread of a single value, ``missing`` for none.

    Args:
        scale: factor of every value, 100 for shares that are shown in percent. Default: 1.
        sign: "+" to show the sign of a mean above 0 too. Default: "".
        digits: decimals. Default: 1.
    """
    if not values:
        return missing
    spread = deviation(values)
    text = f"{scale * statistics.mean(values):{sign}.{digits}f}"
    return text if spread is None else f"{text} ± {scale * spread:.{digits}f}"
