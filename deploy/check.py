"""Check an ECS task definition with a Datadog Agent: `python deploy/check.py [--json] [--ignore RULE] FILE ...`.

FILE is the input of `aws ecs register-task-definition --cli-input-json`, the output of `aws ecs describe-task-definition`,
a CloudFormation template (also one from `cdk synth`), or the JSON of Terraform's container_definitions; `-` is standard
input. `${NAME}` is a value that a deployment fills in. `--ignore` can be repeated, and accepts several rules separated
by commas. docs/task-definition-check.md lists all rules.

Exit code: 0 no findings, or only hints; 1 a mistake; 2 a file could not be checked; 3 a warning, and no mistake.
This command needs botocore, cfn-lint and the folder task_check next to it, and nothing else from this repository.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from task_check import Report, UnreadableError, check
from task_check.finding import FORM_RULES, HINT, LEVELS, MISTAKE, RULES, WARNING

MISSING_TOOLS = "botocore and cfn-lint are needed: pip install botocore cfn-lint (scripts/test installs both)"
EXIT_CODES = {MISTAKE: 1, WARNING: 3, HINT: 0}


def main(arguments: list[str]) -> int:
    """Print the findings for the files, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--ignore", action="append", default=[], metavar="RULE", help="leave out this rule")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    ignored = {rule.strip() for rules in options.ignore for rule in rules.split(",") if rule.strip()}
    for rule in ignored - FORM_RULES - RULES.keys():
        if not rule.startswith("cfn-lint-"):
            parser.error(f"--ignore {rule}: there is no such rule; docs/task-definition-check.md lists all rules")
    reports: dict[str, Report] = {}
    for name in options.files:
        try:
            report = check(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
        except ModuleNotFoundError as error:
            print(f"{error.name} is missing. {MISSING_TOOLS}", file=sys.stderr)
            return 2
        except (OSError, UnreadableError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"{name}: {reason}", file=sys.stderr)
            return 2
        findings = [finding for finding in report.findings if finding.rule not in ignored]
        reports[name] = Report(findings=findings, notes=report.notes)
    if options.json:
        _print_json(reports)
    else:
        _print_text(reports)
    levels = {finding.level for report in reports.values() for finding in report.findings}
    return next((EXIT_CODES[level] for level in LEVELS if level in levels), 0)


def _print_json(reports: dict[str, Report]) -> None:
    print(json.dumps([{"file": name, **asdict(report)} for name, report in reports.items()], indent=2))


def _print_text(reports: dict[str, Report]) -> None:
    for name, report in reports.items():
        for note in report.notes:
            print(f"{name}: note: {note}")
        for finding in report.findings:
            where = f"{finding.container}: " if finding.container else ""
            print(f"{name}: {finding.level} [{finding.rule}] {where}{finding.sentence}\n    -> {finding.fix}")
    counts = Counter(finding.level for report in reports.values() for finding in report.findings)
    summary = [f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}" for level in LEVELS if counts[level]]
    print(", ".join(summary) if summary else f"{', '.join(reports)}: no mistake")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
