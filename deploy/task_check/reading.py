"""Reads the task definitions in a file, whichever tool wrote the file or will render it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from task_check import cloudformation
from task_check.values import mark_open

BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))

# Keys that identify another kind of file, and the name of that kind.
OTHER_FILES = {
    "jobDefinitionName": "an AWS Batch job definition",
    "jobDefinitions": "a list of AWS Batch job definitions",
    "ecsProperties": "an AWS Batch job definition",
    "containerProperties": "an AWS Batch job definition",
    "AWSEBDockerrunVersion": "an Elastic Beanstalk Dockerrun file",
    "apiVersion": "a Kubernetes manifest",
    "serviceName": "the input of create-service",
    "desiredCount": "an ECS service",
    "taskDefinitionArns": "a list of ARNs",
    "tasks": "a list of running tasks",
    "services": "a list of services or a Compose file",
}
JSONNET_FILE = "it is Jsonnet; evaluate it first: jsonnet FILE > task-definition.json"
NOTHING = "it has no containerDefinitions"
HCL = re.compile(r'^\s*(?:resource|module|locals|data|variable)\s*(?:"|\{)', re.MULTILINE)
JSONNET = re.compile(r"^\s*(?:local\s+\w+\s*=|import\s|function\s*\()|std\.\w+\(", re.MULTILINE)


class UnreadableError(Exception):
    """The file is not a task definition; `str()` is a sentence."""


@dataclass
class Source:
    """One task definition of a file.

    Attributes:
        name: distinguishes it from others in the same file.
        whole: false for a bare list of containers.
        registered: whether this is the description of a registered task definition.
        text_numbers: whether "256" is accepted as 256, as by CloudFormation.
        capitals: whether names begin with a capital letter, as in CloudFormation.
        repeated: keys that one object has twice.
    """

    document: dict[str, Any]
    name: str = ""
    whole: bool = True
    registered: bool = False
    text_numbers: bool = False
    capitals: bool = False
    repeated: list[str] = field(default_factory=list)


def decode(data: bytes) -> str:
    """Return the text of `data`: UTF-8, or UTF-16 as PowerShell writes it, with or without a byte order mark.

    Raises:
        UnreadableError: when it is neither.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "")
    if not encoding:  # the first character is ASCII, so in UTF-16 one of its two bytes is 0
        encoding = {0: "utf-16-be", 1: "utf-16-le"}.get(data[:2].find(b"\0"), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeError:
        raise UnreadableError(f"it is not text in {encoding.upper()}; save it as UTF-8") from None


def read(text: str) -> list[Source]:
    """Return the task definitions in `text`, with open values marked.

    Raises:
        UnreadableError: when `text` has no task definition.
    """
    start = text.lstrip("\ufeff \t\r\n")
    if not start:
        raise UnreadableError("it is empty")
    if start[0] not in "{[" and not start.startswith(("//", "/*", "${")):
        return _yaml(text)
    repeated: list[str] = []
    sources = list(_sources(_json(text.lstrip("\ufeff"), repeated)))
    for source in sources:
        source.repeated = repeated
    return sources


def _json(text: str, repeated: list[str]) -> Any:
    scan = _Scan(text)
    if scan.problems:
        raise UnreadableError(JSONNET_FILE if JSONNET.search(text) else "it is not JSON: " + "; ".join(scan.problems))

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for at, name in enumerate(names) if name in names[:at])
        return dict(pairs)

    try:
        return json.loads(scan.result, object_pairs_hook=without_repeats, strict=False)
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        if JSONNET.search(text):
            raise UnreadableError(JSONNET_FILE) from None
        line = text.splitlines()[error.lineno - 1].strip() if error.lineno <= len(text.splitlines()) else ""
        at = f" at {line[:60]}" if line else ""
        hint = " ({{ }} belongs to a template: render it first)" if "{{" in line else ""
        raise UnreadableError(f"it is not JSON: line {error.lineno}: {error.msg}{at}{hint}") from None


class _Scan:
    """One pass over the text, which marks `${...}` and finds comments and trailing commas, which JSON does not have."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.comments: list[int] = []
        self.commas: list[int] = []
        self.result = "".join(self._parts())

    @property
    def problems(self) -> list[str]:
        """One sentence for all comments, and one for all trailing commas."""
        sentences = []
        for kind, lines in (("comments are not JSON", self.comments), ("a trailing comma", self.commas)):
            if lines:
                sentences.append(f"{kind} (line {', '.join(map(str, sorted(set(lines))))})")
        return sentences

    def _parts(self) -> Iterator[str]:  # noqa: C901 - one state machine, whose states are read together
        text, at, quoted, comma = self.text, 0, False, -1
        while at < len(text):
            here = text[at]
            if text.startswith(("${", "%{"), at) and text[at - 1 : at] != here:  # `$${` and `%%{` are escaped
                end = self._end(at + 2)
                value = json.dumps(mark_open(text[at:end]))
                comma = -1
                if quoted:
                    yield value[1:-1]  # a part of a string that has its own quotes
                else:
                    yield "" if here == "%" else value  # a directive such as `%{ if ... }` is not a value
                    yield "\n" * text.count("\n", at, end)  # so that errors have the right line
                at = end
                continue
            if quoted:
                if here == "\\":
                    yield text[at : at + 2]
                    at += 2
                    continue
                quoted = here != '"'
            elif here == '"':
                quoted, comma = True, -1
            elif here == "#" or text.startswith(("//", "/*"), at):
                self.comments.append(self._line(at))
                close = "*/" if text.startswith("/*", at) else "\n"
                end = text.find(close, at + 1)
                at = len(text) if end < 0 else end + len(close) - 1
                at += close == "*/"
                continue
            elif here in "]}":
                if comma >= 0:
                    self.commas.append(self._line(comma))
                comma = -1
            elif here == ",":
                comma = at
            elif not here.isspace():
                comma = -1
            yield here
            at += 1

    def _end(self, at: int) -> int:
        """Return the position after the closing brace of the interpolation whose opening brace is before `at`."""
        depth = 1
        while at < len(self.text) and depth:
            depth += {"{": 1, "}": -1}.get(self.text[at], 0)
            at += 1
        return at

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1


def _yaml(text: str) -> list[Source]:
    """Read a CloudFormation template in YAML with cfn-lint's own reader."""
    from cfnlint.decode import decode_str  # noqa: PLC0415 - the command reports in one sentence when it is missing

    if HCL.search(text):
        raise UnreadableError("it is HCL; check the JSON that Terraform renders for container_definitions")
    template, _ = decode_str(text)
    if not isinstance(template, dict):
        raise UnreadableError("it is neither JSON nor a CloudFormation template")
    return list(_sources(json.loads(_Scan(json.dumps(template, default=str)).result)))


def _sources(document: Any) -> Iterator[Source]:  # noqa: C901, PLR0912 - one branch for each kind of file
    if isinstance(document, list):
        yield from _list(document)
        return
    if not isinstance(document, dict):
        raise UnreadableError(NOTHING)
    if isinstance(resources := document.get("Resources"), dict):
        yield from _template(resources)
    elif isinstance(document.get("Properties"), dict):
        yield from _template({"": document})
    elif isinstance(inner := document.get("taskDefinition"), dict):
        yield from _sources(inner)
    elif "ContainerDefinitions" in document:
        yield Source(cloudformation.resolved(document), text_numbers=True, capitals=True)
    elif key := next((name for name in document if name.lower() == "containerdefinitions"), None):
        if other := next((OTHER_FILES[name] for name in OTHER_FILES if name in document), None):
            raise UnreadableError(f"this is {other}, not an ECS task definition")
        document = {**document, key: _parsed(document[key])}
        yield Source(document, registered=bool(document.keys() & {"revision", "taskDefinitionArn", "status"}))
    elif found := list(_nested(document)):
        for containers in found:
            yield from _sources(_parsed(containers))
    elif other := next((OTHER_FILES[name] for name in OTHER_FILES if name in document), None):
        raise UnreadableError(f"this is {other}, not an ECS task definition")
    elif {"name", "image"} <= document.keys():
        yield Source({"containerDefinitions": [document]}, whole=False)
    else:
        raise UnreadableError(NOTHING)


def _list(entries: list[Any]) -> Iterator[Source]:
    objects = [entry for entry in entries if isinstance(entry, dict)]
    names = {name.lower() for entry in objects for name in entry}
    if names & {"containerdefinitions", "taskdefinition"}:
        for at, entry in enumerate(objects):
            for source in _sources(entry):
                source.name = source.name or str(entry.get("family") or at)
                yield source
    elif {"name", "image"} & names:
        capitals = any("Image" in entry for entry in objects)
        entries = cloudformation.resolved(entries) if capitals else entries
        yield Source({"containerDefinitions": entries}, whole=False, text_numbers=capitals, capitals=capitals)
    else:
        raise UnreadableError(NOTHING)


def _template(resources: dict[str, Any]) -> Iterator[Source]:
    of_type = {
        name: resource.get("Type")
        for name, resource in resources.items()
        if isinstance(resource, dict) and isinstance(resource.get("Properties"), dict)
    }
    found = [name for name, kind in of_type.items() if kind == "AWS::ECS::TaskDefinition"]
    if not found:
        batch = "AWS::Batch::JobDefinition" in of_type.values()
        raise UnreadableError(
            "this is an AWS Batch job definition, not an ECS task definition"
            if batch
            else "the template has no resource of the type AWS::ECS::TaskDefinition"
        )
    for name in found:
        properties = cloudformation.resolved(resources[name]["Properties"])
        yield Source(properties, name if len(found) > 1 else "", text_numbers=True, capitals=True)


def _nested(value: Any) -> Iterator[Any]:
    """Yield each `container_definitions` in Terraform's JSON, which may be a configuration, a plan or a state."""
    if isinstance(value, dict):
        if value.get("container_definitions"):
            yield value["container_definitions"]
        value = list(value.values())
    for entry in value if isinstance(value, list) else []:
        yield from _nested(entry)


def _parsed(value: Any) -> Any:
    """Return the JSON inside a string, which is how Terraform and Pulumi store it; other values stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(_Scan(value).result)
    except ValueError:
        raise UnreadableError("its containerDefinitions is a text that is not JSON") from None
