"""Reads the task definitions in a file, whichever tool wrote the file or will render it.

A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

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
NO_CONTAINERS = "it has no containerDefinitions"
# The beginning of a block in Terraform's own language.
HCL = re.compile(r'^\s*(?:resource|module|locals|data|variable)\s*(?:"|\{)', re.MULTILINE)
# Statements of Jsonnet, and calls of its library.
JSONNET = re.compile(r"^\s*(?:local\s+\w+\s*=|import\s|function\s*\()|std\.\w+\(", re.MULTILINE)


class UnreadableError(Exception):
    """The file can't be read as a task definition; `str()` is the reason, such as "it is empty"."""


@dataclass
class Source:
    """One task definition of a file.

    Attributes:
        document: the parsed definition, with open values marked.
        name: distinguishes it from others in the same file; empty if it is the only one.
        is_whole: false for a bare list of containers.
        is_registered: whether this is the description of a registered task definition.
        has_text_numbers: whether "256" is accepted as 256, as by CloudFormation.
        has_capitals: whether names begin with a capital letter, as in CloudFormation.
        repeated_keys: keys that one object has more than once.
    """

    document: dict[str, Any]
    name: str = ""
    is_whole: bool = True
    is_registered: bool = False
    has_text_numbers: bool = False
    has_capitals: bool = False
    repeated_keys: list[str] = field(default_factory=list)


def decode(data: bytes) -> str:
    """Return the text of `data`: UTF-8, or UTF-16 as PowerShell writes it, with or without a byte order mark.

    Raises:
        UnreadableError: when it is neither.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "")
    if not encoding:
        # The first character is ASCII, so in UTF-16 one of its two bytes is 0.
        zero_position = data[:2].find(b"\0")
        encoding = {0: "utf-16-be", 1: "utf-16-le"}.get(zero_position, "utf-8")
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
    # A JSON file may begin with a comment, or with `${` of a template. Every other file is read as YAML.
    if start[0] not in "{[" and not start.startswith(("//", "/*", "${")):
        return _yaml_sources(text)
    repeated_keys: list[str] = []
    sources = list(_sources(_json(text.lstrip("\ufeff"), repeated_keys)))
    for source in sources:
        source.repeated_keys = repeated_keys
    return sources


def _json(text: str, repeated_keys: list[str]) -> Any:
    """Return `text` as parsed JSON, with open values marked. Repeated keys are added to `repeated_keys`."""
    scan = _Scan(text)
    if scan.problems:
        raise UnreadableError(JSONNET_FILE if JSONNET.search(text) else "it is not JSON: " + "; ".join(scan.problems))

    def convert_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated_keys.extend(name for index, name in enumerate(names) if name in names[:index])
        return dict(pairs)

    try:
        return json.loads(scan.result, object_pairs_hook=convert_object, strict=False)
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        if JSONNET.search(text):
            raise UnreadableError(JSONNET_FILE) from None
        lines = text.splitlines()
        line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
        place = f" at {line[:60]}" if line else ""
        hint = " ({{ }} belongs to a template: render it first)" if "{{" in line else ""
        raise UnreadableError(f"it is not JSON: line {error.lineno}: {error.msg}{place}{hint}") from None


class _Scan:
    """One pass over a text, which marks `${...}` and finds comments and trailing commas, which JSON does not have.

    Attributes:
        comment_lines: the line of each comment.
        comma_lines: the line of each trailing comma.
        result: the text with open values marked and without comments.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.comment_lines: list[int] = []
        self.comma_lines: list[int] = []
        self.result = "".join(self._parts())

    @property
    def problems(self) -> list[str]:
        """A sentence for all comments, and one for all trailing commas."""
        sentences = []
        for kind, lines in (("comments are not JSON", self.comment_lines), ("a trailing comma", self.comma_lines)):
            if lines:
                sentences.append(f"{kind} (line {', '.join(map(str, sorted(set(lines))))})")
        return sentences

    def _parts(self) -> Iterator[str]:  # noqa: C901 - one state machine, whose states are read together
        """Yield the parts of `result`."""
        text, position, in_string = self.text, 0, False
        last_comma = -1  # the position of a comma that only spaces have followed so far, -1 without one
        while position < len(text):
            character = text[position]
            is_escaped = text[position - 1 : position] == character  # as in `$${` and `%%{`
            if text.startswith(("${", "%{"), position) and not is_escaped:
                end = self._end_of_interpolation(position + 2)
                value = json.dumps(mark_open(text[position:end]))
                last_comma = -1
                if in_string:
                    yield value[1:-1]  # a part of a string that has its own quotation marks
                else:
                    yield "" if character == "%" else value  # a directive such as `%{ if ... }` is not a value
                    yield "\n" * text.count("\n", position, end)  # so that errors have the right line
                position = end
                continue
            if in_string:
                if character == "\\":
                    yield text[position : position + 2]
                    position += 2
                    continue
                in_string = character != '"'
            elif character == '"':
                in_string, last_comma = True, -1
            elif character == "#" or text.startswith(("//", "/*"), position):
                self.comment_lines.append(self._line_number(position))
                position = self._end_of_comment(position)
                continue
            elif character in "]}":
                if last_comma >= 0:
                    self.comma_lines.append(self._line_number(last_comma))
                last_comma = -1
            elif character == ",":
                last_comma = position
            elif not character.isspace():
                last_comma = -1
            yield character
            position += 1

    def _end_of_interpolation(self, position: int) -> int:
        """Return the position after the closing brace of the interpolation whose content starts at `position`."""
        depth = 1
        while position < len(self.text) and depth:
            depth += {"{": 1, "}": -1}.get(self.text[position], 0)
            position += 1
        return position

    def _end_of_comment(self, position: int) -> int:
        """Return the position of the first character after the comment that starts at `position`."""
        is_block = self.text.startswith("/*", position)
        end = self.text.find("*/" if is_block else "\n", position + 1)
        if end < 0:
            return len(self.text)
        return end + 2 if is_block else end

    def _line_number(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1


def _yaml_sources(text: str) -> list[Source]:
    """Return the task definitions in a CloudFormation template in YAML, which cfn-lint parses."""
    from cfnlint.decode import decode_str  # noqa: PLC0415 - the command reports in one sentence when it is missing

    if HCL.search(text):
        raise UnreadableError("it is HCL; check the JSON that Terraform renders for container_definitions")
    template, _ = decode_str(text)
    if not isinstance(template, dict):
        raise UnreadableError("it is neither JSON nor a CloudFormation template")
    as_json = json.dumps(template, default=str)  # YAML's dates have no form in JSON
    return list(_sources(json.loads(_Scan(as_json).result)))


def _sources(document: Any) -> Iterator[Source]:  # noqa: C901, PLR0912 - one branch for each kind of file
    """Yield the task definitions in parsed JSON of any kind."""
    if isinstance(document, list):
        yield from _list_sources(document)
        return
    if not isinstance(document, dict):
        raise UnreadableError(NO_CONTAINERS)
    if isinstance(resources := document.get("Resources"), dict):  # a CloudFormation template
        yield from _template_sources(resources)
    elif isinstance(document.get("Properties"), dict):  # one resource of a template
        yield from _template_sources({"": document})
    elif isinstance(inner := document.get("taskDefinition"), dict):  # the output of describe-task-definition
        yield from _sources(inner)
    elif "ContainerDefinitions" in document:  # the properties of a resource
        yield Source(cloudformation.resolve(document), has_text_numbers=True, has_capitals=True)
    elif key := next((name for name in document if name.lower() == "containerdefinitions"), None):
        if other_kind := _other_kind(document):
            raise UnreadableError(f"this is {other_kind}, not an ECS task definition")
        document = {**document, key: _parsed(document[key])}
        is_registered = bool(document.keys() & {"revision", "taskDefinitionArn", "status"})
        yield Source(document, is_registered=is_registered)
    elif terraform_values := list(_container_definitions(document)):  # in Terraform's JSON
        for value in terraform_values:
            yield from _sources(_parsed(value))
    elif other_kind := _other_kind(document):
        raise UnreadableError(f"this is {other_kind}, not an ECS task definition")
    elif {"name", "image"} <= document.keys():  # a single container
        yield Source({"containerDefinitions": [document]}, is_whole=False)
    else:
        raise UnreadableError(NO_CONTAINERS)


def _other_kind(document: dict[str, Any]) -> str | None:
    """Return the kind of file that `document` is by its keys, None if it is not one of OTHER_FILES."""
    return next((kind for key, kind in OTHER_FILES.items() if key in document), None)


def _list_sources(entries: list[Any]) -> Iterator[Source]:
    """Yield the task definitions in a list, which has either task definitions or containers."""
    objects = [entry for entry in entries if isinstance(entry, dict)]
    names = {name.lower() for entry in objects for name in entry}
    if names & {"containerdefinitions", "taskdefinition"}:
        for index, entry in enumerate(objects):
            for source in _sources(entry):
                source.name = source.name or str(entry.get("family") or index)
                yield source
    elif {"name", "image"} & names:
        is_cloudformation = any("Image" in entry for entry in objects)
        yield Source(
            {"containerDefinitions": cloudformation.resolve(entries) if is_cloudformation else entries},
            is_whole=False,
            has_text_numbers=is_cloudformation,
            has_capitals=is_cloudformation,
        )
    else:
        raise UnreadableError(NO_CONTAINERS)


def _template_sources(resources: dict[str, Any]) -> Iterator[Source]:
    """Yield the task definitions among the resources of a CloudFormation template."""
    types = {
        name: resource.get("Type")
        for name, resource in resources.items()
        if isinstance(resource, dict) and isinstance(resource.get("Properties"), dict)
    }
    task_names = [name for name, resource_type in types.items() if resource_type == "AWS::ECS::TaskDefinition"]
    if not task_names:
        if "AWS::Batch::JobDefinition" in types.values():
            raise UnreadableError("this is an AWS Batch job definition, not an ECS task definition")
        raise UnreadableError("the template has no resource of the type AWS::ECS::TaskDefinition")
    for name in task_names:
        properties = cloudformation.resolve(resources[name]["Properties"])
        yield Source(properties, name=name if len(task_names) > 1 else "", has_text_numbers=True, has_capitals=True)


def _container_definitions(value: Any) -> Iterator[Any]:
    """Yield each `container_definitions` in Terraform's JSON, which may be a configuration, a plan or a state."""
    if isinstance(value, dict):
        if value.get("container_definitions"):
            yield value["container_definitions"]
        value = list(value.values())
    for entry in value if isinstance(value, list) else []:
        yield from _container_definitions(entry)


def _parsed(value: Any) -> Any:
    """Return the JSON inside a string, which is how Terraform and Pulumi store it; other values stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(_Scan(value).result)
    except ValueError:
        raise UnreadableError("its containerDefinitions is a text that is not JSON") from None
