"""README.md taken apart: its blocks, the commands that a shell finds in them, and the code within its text."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("pip", "pytest", "python", "torchrun")
# A shell in which these programs only say what they were called with, and all others are not found.
RECORDER = (
    "PATH=\nsay() { printf '%s\\036' \"$@\"; printf '\\035'; }\n"
    + "".join(f'{name}() {{ say {name} "$@"; }}\n' for name in PROGRAMS)
    + "set -eu\n"
)


class Block(NamedTuple):
    """What stands between fences: the word behind the first, the text, and the number of its first line."""

    language: str
    text: str
    line: int

    @property
    def is_output(self):
        """Whether it shows what a command prints: the table of results."""
        return not self.language and self.text.lstrip().startswith("row ")

    @property
    def is_shell(self):
        return not self.language and not self.is_output


def blocks():
    """Every block of README.md, in order."""
    return [Block(found[1], found[2], README[: found.start(2)].count("\n") + 1) for found in FENCED.finditer(README)]


def commands(text):
    """(commands of a shell block, each a list of words as the shell expands it; what the shell complains of)."""
    done = subprocess.run([shutil.which("bash"), "-c", RECORDER + text], capture_output=True, text=True)
    complaint = done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")
    return [command.split("\036")[:-1] for command in done.stdout.split("\035")[:-1]], complaint


def prose():
    """README.md without its blocks."""
    return FENCED.sub("", README)


def codes():
    """Every `code` in the text, its white space made single blanks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose())]
