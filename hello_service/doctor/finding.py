"""What a check found, and how it is told: as lines for a person, as JSON for a machine, never with a secret. A leaf."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import unquote

import click

from hello_service.settings import MASK, SECRET_NAME

Outcome = Literal["pass", "warn", "fail", "skipped"]

VERDICTS = {
    0: "Traces would arrive.",
    1: "Traces would not arrive: see what failed above.",
    2: "Whether traces would arrive, this could not tell: see what was skipped above.",
}
COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "skipped": "cyan"}

# Variables whose whole value is a secret, whatever they are called; the names alone would not tell.
SECRET_VALUES = re.compile(SECRET_NAME.pattern + "|HEADERS", re.IGNORECASE)
CREDENTIALS = re.compile(r"://([^/@\s]+)@")
KEY_SHAPED = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{32})(?![0-9A-Za-z])")
SHORTEST_SECRET = 4  # characters; less could not be told from words of a sentence


@dataclass(frozen=True)
class Finding:
    """The outcome of one check, a sentence that says it, and what to type where something is wrong.

    `undecided`: whether traces would arrive depends on it, and it could not be found out.
    """

    outcome: Outcome
    sentence: str
    fix: str | None = None
    undecided: bool = False


def passed(sentence: str) -> Finding:
    return Finding("pass", sentence)


def warned(sentence: str, fix: str) -> Finding:
    """Traces arrive, but not as a person would want them."""
    return Finding("warn", sentence, fix)


def failed(sentence: str, fix: str) -> Finding:
    """No trace arrives because of this."""
    return Finding("fail", sentence, fix)


def skipped(reason: str) -> Finding:
    """There was nothing to check, or another check says why not."""
    return Finding("skipped", reason)


def unknown(reason: str, fix: str | None = None) -> Finding:
    """It could not be found out, and it matters."""
    return Finding("skipped", reason, fix, undecided=True)


@dataclass(frozen=True)
class Result:
    """A finding and the name of its check."""

    check: str
    finding: Finding


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 when traces would arrive, 1 when not, 2 when it could not be told."""
    if any(result.finding.outcome == "fail" for result in results):
        return 1
    return 2 if any(result.finding.undecided for result in results) else 0


class Redaction:
    """Takes the secrets of `environ` out of any text. No check shows one; this makes sure."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        secrets = {value for name, value in environ.items() if SECRET_VALUES.search(name)}
        for value in environ.values():
            for credentials in CREDENTIALS.findall(value):
                secrets |= {credentials, *credentials.split(":"), *map(unquote, credentials.split(":"))}
        self._secrets = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return `text` with every secret masked, and whatever has the shape of a Datadog key."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return KEY_SHAPED.sub(MASK, text)

    def result(self, result: Result) -> Result:
        """Return `result` with every secret masked."""
        found = result.finding
        fix = None if found.fix is None else self(found.fix)
        return Result(result.check, Finding(found.outcome, self(found.sentence), fix, found.undecided))


def lines(result: Result) -> str:
    """Return `result` for a person: one line, and below it the fix."""
    found = result.finding
    outcome = click.style(f"{found.outcome:<8}", fg=COLOURS[found.outcome])
    fix = f"\n{'':<32}-> {found.fix}" if found.fix else ""
    return f"{outcome}{result.check:<24}{found.sentence}{fix}"


def document(results: Sequence[Result]) -> dict[str, Any]:
    """Return `results` for a machine: JSON values."""
    code = exit_code(results)
    checks = [{"check": result.check, **asdict(result.finding)} for result in results]
    return {"exit_code": code, "verdict": VERDICTS[code], "checks": checks}
