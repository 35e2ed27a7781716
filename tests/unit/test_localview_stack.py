"""Tests of parsing stack traces of Python, JavaScript and Java, and of escaping invisible characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from hello_service.localview.stack import Failure, Frame, failures
from hello_service.localview.text import escape_hidden

PLAIN = """Traceback (most recent call last):
  File "/srv/shop/.venv/lib/python3.13/site-packages/quart/app.py", line 1598, in dispatch_request
    return await self.ensure_async(handler)(**request_.view_args)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/orders/faults.py", line 41, in work
    raise Fault("no")
  File "/usr/lib/python3.13/asyncio/tasks.py", line 507, in wait_for
    return await fut
orders.faults.Fault: no
that is all
"""
CHAIN = """Traceback (most recent call last):
  File "/app/a.py", line 1, in low
    low()
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/b.py", line 2, in high
ValueError: y

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/c.py", line 3, in top
RuntimeError
"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/app/main.py", line 5, in <module>
  |     raise ExceptionGroup("both", [...])
  | ExceptionGroup: both (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/one.py", line 6, in one
    |     raise ValueError(1)
    | ValueError: 1
    +---------------- 2 ----------------
    | KeyError: 2
    +------------------------------------
"""
NODE = """Error: card declined
    at charge (/srv/pay/src/bank.js:88:11)
    at async /srv/pay/src/routes.js:41:5
    at Layer.handle (/srv/pay/node_modules/express/lib/router/layer.js:95:5)
    at node:internal/process/task_queues:95:5
"""
JAVA = """java.lang.IllegalStateException: declined
\tat com.shop.Bank.charge(Bank.java:88)
\tat java.base/java.lang.Thread.run(Thread.java:1583)
"""


def text_of(frame: Frame) -> str:
    """Return a frame as the page shows it."""
    return f"{frame.folder}{frame.file}:{frame.line} in {frame.function}"


def test_own_frames_are_separated_from_library_frames() -> None:
    """The innermost frame is first. It has its line of source code, but not the markers below that line."""
    (failure,) = failures(PLAIN)

    assert [text_of(frame) for frame in failure.own_frames] == ["orders/faults.py:41 in work"]
    assert failure.own_frames[0].source == 'raise Fault("no")'
    assert [text_of(frame) for frame in failure.library_frames] == [
        "asyncio/tasks.py:507 in wait_for",
        "quart/app.py:1598 in dispatch_request",
    ]
    assert failure.title == "orders.faults.Fault: no\nthat is all"


def test_paths_are_relative_to_the_project() -> None:
    """If no own frame is within the given project, paths are relative to the parent of the frames' common folder."""

    def frame_line(path: str) -> str:
        return f'  File "{path}", line 1, in f\n'

    def folders(text: str, project: Path | None = None) -> list[str]:
        (failure,) = failures(text, project)
        return [frame.folder for frame in failure.frames]

    head = "Traceback (most recent call last):\n"
    two_frames = head + frame_line("/a/b/c/d.py") + frame_line("/a/b/e/f.py") + "E: x"

    assert folders(two_frames, Path("/a")) == ["b/e/", "b/c/"]
    assert folders(two_frames, Path("/other")) == ["b/e/", "b/c/"]
    assert folders(frame_line("d.py"), Path("/a")) == [""]
    assert folders(frame_line("/d.py")) == [""]


@pytest.mark.parametrize(
    "path",
    [
        "/x/.venv/lib/python3.13/site-packages/a.py",
        "/usr/lib/python3/dist-packages/a.py",
        "/usr/local/lib/python3.11/asyncio/a.py",
        r"C:\Python313\Lib\asyncio\a.py",
        r"C:\shop\venv\Lib\site-packages\a.py",
        "<frozen importlib._bootstrap>",
    ],
)
def test_a_library_is_recognized(path: str) -> None:
    """The paths are the usual places of libraries."""
    (failure,) = failures(f'Traceback (most recent call last):\n  File "{path}", line 1, in f\nE: x')

    assert failure.own_frames == []
    assert len(failure.library_frames) == 1


def test_chained_exceptions_are_separated() -> None:
    """The exception that was raised last is first."""
    chain = failures(CHAIN)

    assert [failure.title for failure in chain] == ["RuntimeError", "ValueError: y", "KeyError: 'x'"]
    assert [failure.relation for failure in chain] == ["While handling", "Caused by", ""]


def test_the_members_of_an_exception_group_are_separated() -> None:
    """Each member has its own frames. A member without frames is left out."""
    assert [(failure.title, [text_of(frame) for frame in failure.frames]) for failure in failures(GROUP)] == [
        ("ValueError: 1", ["app/one.py:6 in one"]),
        ("ExceptionGroup: both (2 sub-exceptions)", ["app/main.py:5 in <module>"]),
    ]


def test_stack_traces_of_javascript_and_java_are_parsed() -> None:
    """Unlike Python's, these stack traces begin with the innermost frame."""
    (node,), (java,) = failures(NODE), failures(JAVA)

    assert [text_of(frame) for frame in node.own_frames] == ["src/bank.js:88 in charge", "src/routes.js:41 in "]
    assert [frame.line for frame in node.library_frames] == [95, 95]
    assert [text_of(frame) for frame in java.own_frames] == ["Bank.java:88 in com.shop.Bank.charge"]
    assert len(java.library_frames) == 1


def test_the_repetitions_of_a_frame_are_counted() -> None:
    """Python prints the same frame three times, then the number of further repetitions."""
    text = """Traceback (most recent call last):
  File "/a/b.py", line 1, in f
    f()
  [Previous line repeated 996 more times]
E"""
    (failure,) = failures(text)

    assert failure.frames[0].repetitions == 996


def test_a_truncated_stack_trace_is_parsed() -> None:
    """Two exceptions are recognized without the sentence between them."""
    text = '  File "/a/b.py", line 1, in f\nE: 1\n  File "/a/c.py", line 2, in g\nE: 2'

    assert [failure.title for failure in failures(text)] == ["E: 2", "E: 1"]


@pytest.mark.parametrize("text", ["", "no stack at all", "x" * 1_000_000, '  File "' * 50_000, "    at " * 50_000])
def test_other_text_has_no_frames(text: str) -> None:
    """Long texts take no noticeable time, because only the beginning of each line is parsed."""
    assert failures(text) == []


def test_failures_are_compared_by_value() -> None:
    assert failures(PLAIN) == failures(PLAIN)
    assert isinstance(failures(PLAIN)[0], Failure)  # neither list is empty


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "plain"),
        ("Grüße, 東京 👩‍👩‍👧 \u00a0", "Grüße, 東京 👩‍👩‍👧 \u00a0"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),  # the right-to-left override, which displays this as "aexe.png"
        ("\x1b[31m\x9b\x7f\x00", r"\x1b[31m\x9b\x7f\x00"),
        ("\u2066\u200b\ufeff\u2028\xad", r"\u2066\u200b\ufeff\u2028\xad"),
        ("\ud800", r"\ud800"),  # a lone surrogate
        ("\U000e0041", r"\U000e0041"),  # an invisible tag character
        ("one\r\ntwo\tthree", "one\r\ntwo\tthree"),
        ("over\rwritten", r"over\rwritten"),
    ],
)
def test_invisible_characters_are_escaped(text: str, escaped: str) -> None:
    """Readable text is unchanged."""
    assert escape_hidden(text) == escaped


def test_line_feeds_are_escaped_in_a_single_line() -> None:
    assert escape_hidden("one\r\ntwo\tthree", one_line=True) == r"one\r\ntwo\tthree"
