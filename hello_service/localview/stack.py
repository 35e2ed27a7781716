"""Parses stack traces: exceptions and their causes, frames of the project and of libraries, relative paths.

It imports nothing of this package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

MAX_LINE_CHARACTERS = 1000  # the rest of a longer line is ignored
TRACEBACK = re.compile(r"(Exception Group )?Traceback \(most recent call last\):")
PYTHON_FRAME = re.compile(r'\s*File "([^"]+)", line (\d+)(?:, in (.+))?')
# `at function (file:line:column)` or `at file:line:column`.
JAVASCRIPT_FRAME = re.compile(r"\s+at (?:async )?(?:([^()]+) \(?)?\(?([^()\s]+?):(\d+)(?::\d+)?\)?")
JAVA_FRAME = re.compile(r"\s+at ([^()\s]+)\(([^()\s:]+):(\d+)\)")
REPEATED = re.compile(r"\s*\[Previous line repeated (\d+) more times?]")
MARKERS = re.compile(r"[\s~^]+")  # of the failed expression, below a line of source code
RULE = re.compile(r" *\+(-\+)?-+( \d+ -+)?")  # between the members of an exception group
MARGIN = re.compile(r" *[|+] ?")  # of each line of an exception group
RELATIONS = {  # the sentence between two exceptions: the relation of the later to the earlier one
    "The above exception was the direct cause of the following exception:": "Caused by",
    "During handling of the above exception, another exception occurred:": "While handling",
}
# Paths of installed libraries, and of the standard libraries of Python and Node.js.
LIBRARY = re.compile(
    r"(^|/)(site-packages|dist-packages|node_modules)/|/lib/python\d[\d.]*/|/python\d[\d.]*/lib/"
    r"|^<frozen |^node:|^internal/",
    re.IGNORECASE,
)
# Java's frames have no path, so the function shows whether it belongs to the standard library.
JDK_FUNCTION = re.compile(r"(java|javax|jdk|sun|kotlin)\.")


@dataclass(frozen=True)
class Frame:
    """A stack frame. It `is_own` if its file is part of the project, not of a library.

    Attributes:
        repetitions: how many further occurrences of the frame Python left out, as in a recursion.
    """

    folder: str
    file: str
    line: int
    function: str
    source: str = ""
    is_own: bool = True
    repetitions: int = 0


@dataclass(frozen=True)
class Failure:
    """An exception with its frames, innermost first.

    Attributes:
        title: the lines of the stack trace that contain the type and the message.
        relation: `Caused by` or `While handling`, the relation to the exception raised before; empty if none is stated.
    """

    title: str
    frames: tuple[Frame, ...]
    relation: str = ""

    @property
    def own_frames(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.is_own]

    @property
    def library_frames(self) -> list[Frame]:
        return [frame for frame in self.frames if not frame.is_own]


def failures(text: str, project: Path | None = None) -> list[Failure]:
    """Return the exceptions of a stack trace, the last raised first; none if it can't be parsed.

    Paths of own frames are relative to `project` if one of them is in it, else to the parent of their common folder.
    """
    parsed = _Parser().parse(text)
    own_paths = [PurePosixPath(_path(frame)) for failure in parsed for frame in failure.own_frames]
    root = _root([path for path in own_paths if path.is_absolute()], project)
    shortened = [
        replace(failure, frames=tuple(_with_relative_path(frame, root) for frame in failure.frames))
        for failure in parsed
    ]
    return shortened[::-1]


class _Parser:
    """Parses a stack trace line by line.

    `frames`, `title` and `relation` belong to the exception that is not complete yet. `innermost_first` is whether its
    first frame is the innermost, as in JavaScript and Java. In Python, the innermost frame is the last.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.frames: list[Frame] = []
        self.title: list[str] = []
        self.relation = ""
        self.innermost_first = False

    def parse(self, text: str) -> list[Failure]:
        lines = text.splitlines()
        has_group = "Exception Group Traceback" in text
        for line in lines:
            if has_group and RULE.fullmatch(line):
                self._finish_failure()
            else:
                without_margin = MARGIN.sub("", line, count=1) if has_group else line
                self._parse_line(without_margin[:MAX_LINE_CHARACTERS])
        self._finish_failure()
        return self.failures

    def _parse_line(self, line: str) -> None:
        if TRACEBACK.fullmatch(line.strip()):
            self._finish_failure()
        elif line.strip() in RELATIONS:
            self._finish_failure(RELATIONS[line.strip()])
        elif frame := _python_frame(line):
            self._add_frame(frame)
        elif frame := _at_frame(line):
            self.innermost_first = True
            self._add_frame(frame)
        elif self.frames and (match := REPEATED.fullmatch(line)):
            self.frames[-1] = replace(self.frames[-1], repetitions=int(match[1]))
        elif self.frames and line.startswith("    ") and not self.title:  # the source code of the last frame
            if not self.frames[-1].source and not MARKERS.fullmatch(line):
                self.frames[-1] = replace(self.frames[-1], source=line.strip())
        elif line.strip() or self.title:  # a title may have empty lines, but not at its beginning
            self.title.append(line)

    def _add_frame(self, frame: Frame) -> None:
        if self.title and self.frames and not self.innermost_first:
            self._finish_failure()  # in Python, the title follows the frames, so this frame is of another exception
        self.frames.append(frame)

    def _finish_failure(self, relation: str = "") -> None:
        """Add the exception read so far, if any. `relation` is that of the next exception to it."""
        if self.frames:
            frames = self.frames if self.innermost_first else self.frames[::-1]
            title = "\n".join(self.title).strip()
            self.failures.append(Failure(title=title, frames=tuple(frames), relation=self.relation))
            self.relation = ""
        self.frames, self.title, self.innermost_first = [], [], False
        self.relation = relation or self.relation


def _python_frame(line: str) -> Frame | None:
    match = PYTHON_FRAME.fullmatch(line)
    return _make_frame(match[1], match[2], match[3] or "") if match else None


def _at_frame(line: str) -> Frame | None:
    if match := JAVA_FRAME.fullmatch(line):
        frame = _make_frame(match[2], match[3], match[1])
        return replace(frame, is_own=not JDK_FUNCTION.match(match[1]))
    match = JAVASCRIPT_FRAME.fullmatch(line)
    return _make_frame(match[2], match[3], match[1] or "") if match else None


def _make_frame(path: str, line: str, function: str) -> Frame:
    path = path.replace("\\", "/").removeprefix("file://")
    folder, slash, file = path.rpartition("/")
    is_own = not LIBRARY.search(path)
    return Frame(folder=folder + slash, file=file, line=int(line), function=function, is_own=is_own)


def _path(frame: Frame) -> str:
    return frame.folder + frame.file


def _root(own_paths: Sequence[PurePosixPath], project: Path | None) -> str:
    """Return the folder to which own paths are relative, with a trailing slash; empty if there are no own paths."""
    if project and any(path.is_relative_to(project.as_posix()) for path in own_paths):
        return f"{project.as_posix().rstrip('/')}/"
    if not own_paths:
        return ""
    common = PurePosixPath(os.path.commonpath([path.parent for path in own_paths]))
    # The parent is used so that each path begins with the name of the common folder.
    return f"{str(common.parent).rstrip('/')}/"


def _with_relative_path(frame: Frame, root: str) -> Frame:
    """Return `frame` with a path relative to `root` or to the folder of installed libraries."""
    if frame.is_own:
        return replace(frame, folder=frame.folder.removeprefix(root))
    parts = re.split(r"(?:site|dist)-packages/|node_modules/|/lib/python\d[\d.]*/", frame.folder, flags=re.IGNORECASE)
    return replace(frame, folder=parts[-1])
