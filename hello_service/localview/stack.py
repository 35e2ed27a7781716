"""Parses stack traces: exceptions and their causes, frames of the project and of libraries, relative paths. A leaf."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

MAX_CHARACTERS = 1000  # of a line; the rest is ignored
BEGIN = re.compile(r"(Exception Group )?Traceback \(most recent call last\):")
PYTHON = re.compile(r'\s*File "([^"]+)", line (\d+)(?:, in (.+))?')
AT = re.compile(r"\s+at (?:async )?(?:([^()]+) \(?)?\(?([^()\s]+?):(\d+)(?::\d+)?\)?")  # JavaScript and Java
JAVA = re.compile(r"\s+at ([^()\s]+)\(([^()\s:]+):(\d+)\)")
REPEATED = re.compile(r"\s*\[Previous line repeated (\d+) more times?]")
MARKERS = re.compile(r"[\s~^]+")
RULE = re.compile(r" *\+(-\+)?-+( \d+ -+)?")  # between the members of an exception group
MARGIN = re.compile(r" *[|+] ?")
RELATIONS = {
    "The above exception was the direct cause of the following exception:": "Caused by",
    "During handling of the above exception, another exception occurred:": "While handling",
}
LIBRARY = re.compile(
    r"(^|/)(site-packages|dist-packages|node_modules)/|/lib/python\d[\d.]*/|/python\d[\d.]*/lib/|^<frozen |^node:|^internal/",
    re.IGNORECASE,
)
JDK = re.compile(r"(java|javax|jdk|sun|kotlin)\.")


@dataclass(frozen=True)
class Frame:
    """A stack frame. `folder` is relative to the project if the file is `own`, that is, part of the project."""

    folder: str
    file: str
    line: int
    function: str
    source: str = ""
    own: bool = True
    repeated: int = 0


@dataclass(frozen=True)
class Failure:
    """An exception with its frames, innermost first. `relation` is its relation to the exception raised before it."""

    title: str
    frames: tuple[Frame, ...]
    relation: str = ""

    @property
    def own(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.own]

    @property
    def library(self) -> list[Frame]:
        return [frame for frame in self.frames if not frame.own]


def failures(text: str, project: Path | None = None) -> list[Failure]:
    """Return the exceptions of a stack trace, the last raised first; none if it can't be parsed.

    Paths are relative to `project` if the project's frames are in it, else to their common folder.
    """
    found = _Parser().parse(text)
    own = [PurePosixPath(_path(frame)) for failure in found for frame in failure.own]
    root = _root([path for path in own if path.is_absolute()], project)
    shortened = [replace(each, frames=tuple(_relative(frame, root) for frame in each.frames)) for each in found]
    return shortened[::-1]


class _Parser:
    """Parses a stack trace line by line. `frames` and `title` belong to the exception that is not complete yet."""

    def __init__(self) -> None:
        self.found: list[Failure] = []
        self.frames: list[Frame] = []
        self.title: list[str] = []
        self.relation = ""
        self.innermost_first = False

    def parse(self, text: str) -> list[Failure]:
        lines = text.splitlines()
        grouped = "Exception Group Traceback" in text
        for line in lines:
            if grouped and RULE.fullmatch(line):
                self._finish_failure()
            else:
                self._parse_line((MARGIN.sub("", line, count=1) if grouped else line)[:MAX_CHARACTERS])
        self._finish_failure()
        return self.found

    def _parse_line(self, line: str) -> None:
        if BEGIN.fullmatch(line.strip()):
            self._finish_failure()
        elif line.strip() in RELATIONS:
            self._finish_failure(RELATIONS[line.strip()])
        elif frame := _python_frame(line):
            self._add_frame(frame)
        elif frame := _at_frame(line):
            self.innermost_first = True
            self._add_frame(frame)
        elif self.frames and (repeated := REPEATED.fullmatch(line)):
            self.frames[-1] = replace(self.frames[-1], repeated=int(repeated[1]))
        elif self.frames and line.startswith("    ") and not self.title:
            if not self.frames[-1].source and not MARKERS.fullmatch(line):
                self.frames[-1] = replace(self.frames[-1], source=line.strip())
        elif line.strip() or self.title:
            self.title.append(line)

    def _add_frame(self, frame: Frame) -> None:
        if self.title and self.frames and not self.innermost_first:
            self._finish_failure()
        self.frames.append(frame)

    def _finish_failure(self, relation: str = "") -> None:
        if self.frames:
            frames = self.frames if self.innermost_first else self.frames[::-1]
            self.found.append(Failure("\n".join(self.title).strip(), tuple(frames), self.relation))
            self.relation = ""
        self.frames, self.title, self.innermost_first = [], [], False
        self.relation = relation or self.relation


def _python_frame(line: str) -> Frame | None:
    found = PYTHON.fullmatch(line)
    return _frame(found[1], found[2], found[3] or "") if found else None


def _at_frame(line: str) -> Frame | None:
    if found := JAVA.fullmatch(line):
        frame = _frame(found[2], found[3], found[1])
        return replace(frame, own=not JDK.match(found[1]))
    found = AT.fullmatch(line)
    return _frame(found[2], found[3], found[1] or "") if found else None


def _frame(path: str, line: str, function: str) -> Frame:
    path = path.replace("\\", "/").removeprefix("file://")
    folder, slash, file = path.rpartition("/")
    return Frame(folder + slash, file, int(line), function, own=not LIBRARY.search(path))


def _path(frame: Frame) -> str:
    return frame.folder + frame.file


def _root(own: Sequence[PurePosixPath], project: Path | None) -> str:
    """Return the folder, with a trailing slash, that own paths are relative to; empty if there is none."""
    if project and any(path.is_relative_to(project.as_posix()) for path in own):
        return f"{project.as_posix().rstrip('/')}/"
    if not own:
        return ""
    common = PurePosixPath(os.path.commonpath([path.parent for path in own]))
    return f"{str(common.parent).rstrip('/')}/"


def _relative(frame: Frame, root: str) -> Frame:
    if frame.own:
        return replace(frame, folder=frame.folder.removeprefix(root))
    *_, rest = re.split(
        r"(?:site|dist)-packages/|node_modules/|/lib/python\d[\d.]*/", frame.folder, flags=re.IGNORECASE
    )
    return replace(frame, folder=rest)
