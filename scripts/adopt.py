"""Rename package, service, distribution and command everywhere in a fresh copy of this repository.

    scripts/adopt my-orders      package my_orders, service and command my-orders

CHANGELOG.md stays as it is. At the end, the script deletes itself, its test and its section of docs/make-it-yours.md.
"""

from __future__ import annotations

import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")  # words, joined by dashes or underscores
OWN_FILES = ("scripts/adopt", "scripts/adopt.py", "tests/process/test_adopt.py")
GUIDE = "docs/make-it-yours.md"
UNCHANGED = ("CHANGELOG.md",)
IGNORED = re.compile(r"\.git|\.venv.*|__pycache__|\..*cache")  # made by git and by tools


@dataclass(frozen=True)
class Names:
    """The forms of a name that consists of one or more words: `my_orders`, `my-orders`, `MyOrders`."""

    words: tuple[str, ...]

    @property
    def package(self) -> str:
        return "_".join(self.words)

    @property
    def service(self) -> str:
        return "-".join(self.words)

    @property
    def forms(self) -> tuple[str, str, str]:
        """The names of package, service and class."""
        return self.package, self.service, "".join(word.capitalize() for word in self.words)


OLD = Names(("hello", "service"))


def parse(name: str) -> Names:
    """Return the forms of `name`.

    Raises:
        ValueError: the name can't be used; the message has the reason.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} can't be the name of a service: use lower-case letters, digits and dashes, as in my-orders."
        )
    names = Names(tuple(re.split("[-_]", name)))
    if names == OLD:
        raise ValueError(f"{name!r} is the service's name already: choose another name.")
    if names.package in reserved_names():
        raise ValueError(f"{name!r} would hide a module called {names.package}: choose another name.")
    return names


def reserved_names() -> set[str]:
    """Return names that would collide: keywords, and modules of Python, of the dependencies and of this repository."""
    requirements = "\n".join(path.read_text() for path in ROOT.glob("requirements/*.txt"))
    distributions = re.findall(r"^([\w.-]+)==", requirements, re.MULTILINE)
    dependencies = [name.replace("-", "_").lower() for name in distributions]
    local_modules = [path.stem for path in (*ROOT.iterdir(), *ROOT.glob("tests/*"))]
    return {*sys.stdlib_module_names, *keyword.kwlist, *dependencies, *local_modules}


def files(folder: Path = ROOT) -> Iterator[Path]:
    """Yield every file in which names are replaced."""
    for path in sorted(folder.iterdir()):
        if IGNORED.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            yield from files(path)
        elif path.name not in UNCHANGED:
            yield path


def rename(new: Names) -> int:
    """Replace the names in the contents and paths of all files. Return the number of files that changed."""
    forms = dict(zip(OLD.forms, new.forms, strict=True))
    pattern = re.compile("|".join(forms))

    def with_new_names(text: str) -> str:
        return pattern.sub(lambda match: forms[match[0]], text)

    changed = 0
    for path in list(files()):  # a list, because the loop changes the folders that files() reads
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:  # in an image, only the path can change
            text = ""
        new_text = with_new_names(text)
        new_path = ROOT / with_new_names(str(path.relative_to(ROOT)))
        if new_text != text:
            path.write_bytes(new_text.encode())
        if new_path != path:
            new_path.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new_path)
        if new_text != text or new_path != path:
            changed += 1
    shutil.rmtree(ROOT / OLD.package)  # contains only bytecode now
    return changed


def remove_itself() -> None:
    """Delete this script, its test and its section of the guide."""
    for path in OWN_FILES:
        (ROOT / path).unlink()
    guide = ROOT / GUIDE
    guide.write_text(re.sub(r"^## Rename it\n.*?(?=^## )", "", guide.read_text(), flags=re.DOTALL | re.MULTILINE))


def sort_imports_and_format() -> bool:
    """Sort imports and format, because the new names have another length. Return whether ruff was available."""
    ruff = shutil.which("ruff", path=str(ROOT / ".venv" / "bin")) or shutil.which("ruff")
    if ruff:
        subprocess.run([ruff, "check", "--quiet", "--select", "I", "--fix"], cwd=ROOT, check=True)
        subprocess.run([ruff, "format", "--quiet"], cwd=ROOT, check=True)
    return bool(ruff)


def main() -> None:
    """Rename everything, or exit with the reason why this isn't possible."""
    if sys.version_info < (3, 11):  # noqa: UP036 - another Python may run this script
        sys.exit("This needs Python 3.11 or newer. Set PYTHON, such as PYTHON=python3.13.")
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("Usage: scripts/adopt NAME, such as my-orders")
    if not (ROOT / OLD.package).is_dir():
        sys.exit(f"No {OLD.package}/ found here: this copy has been renamed already.")
    try:
        new = parse(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    count = rename(new)
    remove_itself()
    print(f"{count} files renamed or changed: package {new.package}, service and command {new.service}.")
    format_commands = ".venv/bin/ruff check --select I --fix; .venv/bin/ruff format; "
    if sort_imports_and_format():
        format_commands = ""
    print(f"Next: scripts/test tests/unit; {format_commands}scripts/lint; then {GUIDE} lists what to delete.")


if __name__ == "__main__":
    main()
