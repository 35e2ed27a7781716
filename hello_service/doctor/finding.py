"""Defines the result of a check, and formats the report without secrets, as text for people or JSON for scripts."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, Literal
from urllib.parse import unquote

import click

from hello_service.settings import MASK, SECRET_NAME

Outcome = Literal["pass", "warn", "fail", "skipped"]

VERDICTS = {
    0: "Traces would arrive.",
    1: "Traces would not arrive. Fix the failures above.",
    2: 'Undetermined: some checks could not run (see "skipped" above).',
}
# A report lists the outcomes in this order.
COLORS: Mapping[Outcome, str] = {"fail": "red", "warn": "yellow", "skipped": "cyan", "pass": "green"}
SUMMARY_WORDS = {"fail": "failed", "warn": "warning", "skipped": "skipped", "pass": "passed"}
COLUMN = 32  # where a sentence starts: after 8 characters for the outcome and 24 for the name of the check
MIN_SENTENCE_WIDTH = 24  # characters, enough for a few words

# Variables whose whole value is treated as a secret. Headers, as in OTEL_EXPORTER_OTLP_HEADERS, can contain a key.
SECRET_VARIABLE = re.compile(SECRET_NAME.pattern + "|HEADERS", re.IGNORECASE)
# User name and password in a URL.
CREDENTIALS = re.compile(r"://([^/@\s]+)@")
# A Datadog API key has 32 hexadecimal characters, an application key 40. Other values of this form are also masked.
KEY_SHAPED = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{32})(?![0-9A-Za-z])")
SHORTEST_SECRET = 4  # characters; masking shorter ones would mask parts of ordinary words


@dataclass(frozen=True)
class Finding:
    """The outcome of one check, a sentence about it, and the fix if something is wrong.

    `undecided` means that the check could not run, and the verdict depends on it.
    """

    outcome: Outcome
    sentence: str
    fix: str | None = None
    undecided: bool = False


def passed(sentence: str) -> Finding:
    return Finding("pass", sentence)


def warned(sentence: str, fix: str) -> Finding:
    """Traces arrive, but something about them is wrong."""
    return Finding("warn", sentence, fix)


def failed(sentence: str, fix: str) -> Finding:
    """Something prevents traces from arriving."""
    return Finding("fail", sentence, fix)


def skipped(reason: str) -> Finding:
    """There was nothing to check, or another check already reports the problem."""
    return Finding("skipped", reason)


def unknown(reason: str, fix: str | None = None) -> Finding:
    """The check could not run, and the verdict depends on it."""
    return Finding("skipped", reason, fix, undecided=True)


@dataclass(frozen=True)
class Result:
    """A finding and the name of its check."""

    check: str
    finding: Finding


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 if traces would arrive, 1 if not, 2 if undetermined."""
    if any(result.finding.outcome == "fail" for result in results):
        return 1
    return 2 if any(result.finding.undecided for result in results) else 0


class Redaction:
    """Masks the secrets of `environ` in any text. No check should show one; this is a second safeguard."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        secrets = {value for name, value in environ.items() if SECRET_VARIABLE.search(name)}
        for value in environ.values():
            for credentials in CREDENTIALS.findall(value):
                secrets |= {credentials, *credentials.split(":"), *map(unquote, credentials.split(":"))}
        # The longest first, because a shorter secret can be a part of it.
        self._secrets = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return `text` with every secret and everything that looks like a Datadog key masked."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return KEY_SHAPED.sub(MASK, text)

    def result(self, result: Result) -> Result:
        """Return `result` with every secret masked."""
        finding = result.finding
        fix = None if finding.fix is None else self(finding.fix)
        return Result(result.check, Finding(finding.outcome, self(finding.sentence), fix, undecided=finding.undecided))


def report(results: Sequence[Result], width: int | None = None) -> str:
    """Return `results` as text: failures first, each with its fix below it, then the counts and the verdict.

    Args:
        results: in the order of the checks.
        width: in characters; None means the terminal's width, or no limit if the output is not a terminal.
    """
    if width is None:
        width = get_terminal_size().columns if sys.stdout.isatty() else 10**6
    counts = Counter(result.finding.outcome for result in results)
    outcomes = [outcome for outcome in COLORS if counts[outcome]]
    ordered = sorted(results, key=lambda result: outcomes.index(result.finding.outcome))
    lines = [_format_result(result, width) for result in ordered]
    summary = ", ".join(
        click.style(_format_count(outcome, counts[outcome]), fg=COLORS[outcome]) for outcome in outcomes
    )
    return "\n".join([*lines, "", summary, VERDICTS[exit_code(results)]])


def _format_count(outcome: Outcome, count: int) -> str:
    plural = "s" if outcome == "warn" and count > 1 else ""  # only "warning" has a plural: 2 warnings, but 2 failed
    return f"{count} {SUMMARY_WORDS[outcome]}{plural}"


def _format_result(result: Result, width: int) -> str:
    finding = result.finding
    outcome = click.style(f"{finding.outcome:<8}", fg=COLORS[finding.outcome])
    fix = f"\n{'':<{COLUMN}}-> {_wrap(finding.fix, width, COLUMN + 3)}" if finding.fix else ""
    return f"{outcome}{result.check:<24}{_wrap(finding.sentence, width, COLUMN)}{fix}"


def _wrap(text: str, width: int, indent: int) -> str:
    """Break `text` into lines of at most `width` characters, but never within a word, such as a URL to copy.

    The lines after the first start with `indent` spaces. On a very narrow terminal, lines are longer than `width`.
    """
    lines = wrap(text, max(width - indent, MIN_SENTENCE_WIDTH), break_long_words=False, break_on_hyphens=False)
    return f"\n{'':<{indent}}".join(lines)


def document(results: Sequence[Result]) -> dict[str, Any]:
    """Return `results` as JSON values."""
    code = exit_code(results)
    checks = [{"check": result.check, **asdict(result.finding)} for result in results]
    return {"exit_code": code, "verdict": VERDICTS[code], "checks": checks}
