"""The documents taken apart: their blocks, the commands that a shell finds in them, and the code within their text."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# In a reader's order: what one page makes, a later one may use.
PAGES = (
    "README.md",
    "configs/README.md",
    "configs/DATA.md",
    "configs/REFERENCE.md",
    "tools/README.md",
    "tools/BENCHMARKS.md",
    "tools/REPRODUCTION.md",
    "tests/README.md",
    ".github/CONTRIBUTING.md",
)
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("bash", "dpm", "mypy", "pip", "pre-commit", "pytest", "python", "ruff", "torchrun")
# A shell in which these programs only say what they were called with, and all others are not found.
RECORDER = (
    "PATH=\nsay() { printf '%s\\036' \"$@\"; printf '\\035'; }\n"
    + "".join(f'{name}() {{ say {name} "$@"; }}\n' for name in PROGRAMS)
    + "set -eu\n"
)


class Block(NamedTuple):
    """What stands between fences: the word behind the first, the text, and where (page:line) it begins."""

    language: str
    text: str
    where: str

    @property
    def is_output(self):
        """Whether it shows what a command prints: the table of results."""
        return not self.language and self.text.lstrip().startswith("row ")

    @property
    def is_shell(self):
        return not self.language and not self.is_output


def blocks():
    """Every block of every page, in order."""
    for page, text in TEXTS.items():
        for found in FENCED.finditer(text):
            yield Block(found[1], found[2], f"{page}:{text[: found.start(2)].count(chr(10)) + 1}")


def commands(text):
    """(commands of a shell block, each a list of words as the shell expands it; what the shell complains of)."""
    done = subprocess.run([shutil.which("bash"), "-c", RECORDER + text], capture_output=True, text=True)
    complaint = done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")
    return [command.split("\036")[:-1] for command in done.stdout.split("\035")[:-1]], complaint


def prose(*pages):
    """The text of the pages (default: all) without their blocks."""
    return "\n".join(FENCED.sub("", TEXTS[page]) for page in pages or PAGES)


def codes(text):
    """Every `code` in a text, its white space made single blanks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def links(page):
    """(text, file or "" for this page, anchor or "") of every link of a page to this repository."""
    found = re.findall(r"\[([^\]]*)\]\((?!\w+:)([^)#]*)#?([^)]*)\)", prose(page))
    return [(text, (ROOT / page).parent / file if file else ROOT / page, anchor) for text, file, anchor in found]


def anchors(path):
    """What links can name of a page: its headings as GitHub writes them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
