"""What the pages of results are made of: Markdown tables, CSV, PNG, and the command that made them."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> list[str]:
    """The lines of a table; ``rule`` is the mark under every column but the first, "---:" for right-aligned ones."""
    cells = [heads, ["---", *[rule] * (len(heads) - 1)], *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with a line of headings; None is an empty cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return file.getvalue()


def png(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as a PNG file, drawn without a display."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def write_page(out: str | Path, name: str, **contents: str | bytes) -> list[Path]:
    """Write ``out/name.SUFFIX`` for every suffix=content, in this order, and return the paths.

    Raises:
        DPMError: the folder or a file cannot be written.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DPMError(f"'{out}' cannot be written: {error.strerror}; name another output folder") from error
    paths = [out / f"{name}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values()):
        write_file(path, content)
    return paths


def made_by(command: str) -> list[str]:
    """The lines that tell which command made a page."""
    return ["Made by", "", "```", command, "```"]


def add_command(path: Path, command: str) -> None:
    """Append the command that made it to the page at ``path``, once."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {path.stem}\n\n![{path.stem}]({path.stem}.png)\n"
    if command not in text:
        write_file(path, "\n".join([text.rstrip("\n"), "", *made_by(command), ""]))
