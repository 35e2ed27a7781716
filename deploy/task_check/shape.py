"""Converts a document to the names and types of RegisterTaskDefinition, as botocore's model defines them.

A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from task_check.arns import source_problem
from task_check.finding import HINT, MISTAKE, RULES, WARNING, Finding
from task_check.reading import Source
from task_check.values import OpenList, is_open, mark_open, number, quoted

# Fields that ECS requires although the model does not, by shape.
REQUIRED = {
    "ContainerDefinition": ["name", "image"],
    "PortMapping": ["containerPort"],
    "MountPoint": ["sourceVolume", "containerPath"],
    "Secret": ["name", "valueFrom"],
}
# Names of CloudFormation that differ from the API's in more than capitals.
CLOUDFORMATION_NAMES = {"ProxyConfigurationProperties": "properties"}
# The types of the model, in words and in Python.
TYPE_WORDS = {"string": "text in quotes", "integer": "a whole number", "long": "a whole number"}
TYPE_WORDS |= {"boolean": "true or false", "structure": "an object", "list": "an array", "map": "an object"}
TYPES: dict[str, type | tuple[type, ...]] = {"structure": dict, "map": dict, "list": list, "string": str}
TYPES |= {"integer": int, "long": int, "boolean": bool, "double": (int, float), "float": (int, float)}


@cache
def _ecs_model() -> Any:
    """Return botocore's model of ECS."""
    from botocore.session import get_session  # noqa: PLC0415 - the command reports in one sentence when it is missing

    return get_session().get_service_model("ecs")


def request_shape() -> Any:
    """Return botocore's shape of the input of RegisterTaskDefinition."""
    return _ecs_model().operation_model("RegisterTaskDefinition").input_shape


def _container_shape() -> Any:
    return request_shape().members["containerDefinitions"].member


def _output_fields() -> set[str]:
    """Return the fields that only a registered task definition has, which a definition to register must not have."""
    return set(_ecs_model().shape_for("TaskDefinition").members) - set(request_shape().members)


def conform(source: Source) -> tuple[dict[str, Any], list[Finding]]:
    """Return the document with the API's names and types, and a finding for each name and type that was wrong.

    Unknown fields and values of the wrong type are left out, so other rules can rely on names and types.
    """
    conversion = _Conversion(source)
    output_fields = {name.lower() for name in _output_fields()}
    document = {name: value for name, value in source.document.items() if name.lower() not in output_fields}
    clean = conversion.structure(document, request_shape(), path="", container="")
    # CloudFormation, whose names begin with capitals, generates a missing family.
    if source.is_whole and not source.has_capitals and "family" not in clean:
        fix = 'add "family": "<name>"'
        conversion.report("missing-field", container="", sentence="`family` is missing", fix=fix)
    if conversion.nulls:
        more = f" and {len(conversion.nulls) - 3} more" if len(conversion.nulls) > 3 else ""
        fields = ", ".join(f"`{name}`" for name in conversion.nulls[:3])
        level = HINT if source.is_registered else WARNING
        sentence = f"the AWS CLI rejects null, which is the value of {fields}{more}"
        conversion.report("null-field", container="", sentence=sentence, fix="leave these fields out", level=level)
    for name in source.repeated_keys:
        sentence = f"one object has the key `{name}` twice; only the last one counts"
        conversion.report("repeated-key", container="", sentence=sentence, fix="merge the two")
    return clean, conversion.findings


@dataclass
class _Conversion:
    """One conversion of a document. `nulls` has the fields whose value is null."""

    source: Source
    findings: list[Finding] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)

    def report(self, rule: str, container: str, sentence: str, fix: str, level: str = MISTAKE) -> None:
        self.findings.append(Finding(rule=rule, level=level, container=container, sentence=sentence, fix=fix))

    def value(self, value: Any, shape: Any, path: str, container: str) -> Any:  # noqa: PLR0911 - one for each kind of shape
        """Return `value` in the form of `shape`, or None if it must be left out.

        `path` is the field in `container`, or in the task if `container` is empty.
        """
        kind = shape.type_name
        if isinstance(value, str) and is_open(value):
            if kind == "list":
                return OpenList()
            return None if kind in {"structure", "map"} else value
        value = self._converted(value, kind)
        if not _has_type(value, kind):
            self._report_wrong_type(value, kind, path, container)
            return _intended(value, kind)
        if kind == "structure":
            return self.structure(value, shape, path, container)
        if kind == "list":
            return self._list(value, shape, path, container)
        if kind == "map":
            return self._map(value, shape, path, container)
        if getattr(shape, "enum", None) and value not in shape.enum:
            # An empty value means that the field is not set. An entry of requiresCompatibilities is not a field.
            if value == "" and shape.name != "Compatibility":
                return None
            sentence = f"`{path}` is {quoted(value)}, which ECS does not accept"
            self.report("unknown-value", container, sentence, f"use one of: {', '.join(shape.enum)}")
            # The intended value in its right spelling, or a value that no other rule reads.
            return next((known for known in shape.enum if known.lower() == value.lower()), mark_open(value))
        return value

    def _report_wrong_type(self, value: Any, kind: str, path: str, container: str) -> None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, bool):
            actual = text
        elif isinstance(value, str):
            actual = f"the text {quoted(value)}"
        elif isinstance(value, int | float):
            actual = quoted(value)
        else:
            actual = TYPE_WORDS["list" if isinstance(value, list) else "map"]
        fix = "correct it"
        if kind == "string" and isinstance(value, int | float):
            fix = f'write "{text}"'
        elif kind in {"integer", "boolean"} and isinstance(value, str) and (number(value) or text in {"true", "false"}):
            fix = "write it without quotes"
        self.report("wrong-type", container, f"`{path}` must be {TYPE_WORDS[kind]}, not {actual}", fix)

    def _converted(self, value: Any, kind: str) -> Any:
        """Return `value` converted to `kind`, as CloudFormation would. In other formats, only 1.0 is converted to 1."""
        if isinstance(value, float) and value.is_integer() and kind in {"integer", "long"}:
            return int(value)
        if not self.source.has_text_numbers:
            return value
        if kind in {"integer", "long"} and isinstance(value, str) and value.strip().isdigit():
            return int(value)
        if kind == "boolean" and str(value).lower() in {"true", "false"}:
            return str(value).lower() == "true"
        if kind == "string" and isinstance(value, int | float):
            return str(value).lower() if isinstance(value, bool) else str(value)
        return value

    def _list(self, value: list[Any], shape: Any, path: str, container: str) -> list[Any]:
        entries: list[Any] = []
        is_complete = True
        for index, entry in enumerate(value):
            entry_path, entry_container = f"{path}[{index}]", container
            if path == "containerDefinitions" and isinstance(entry, dict):
                entry_container = str(entry.get("name") or entry.get("Name") or entry_path)
                entry_path = ""  # the paths of a container's fields begin in the container
            if entry is None:
                self.nulls.append(entry_path)
                continue
            clean = self.value(entry, shape.member, entry_path, entry_container)
            if clean is not None:
                entries.append(clean)
            elif is_open(entry):
                is_complete = False
        return entries if is_complete else OpenList(entries)

    def _map(self, value: dict[str, Any], shape: Any, path: str, container: str) -> dict[str, Any]:
        clean = {name: self.value(entry, shape.value, f"{path}.{name}", container) for name, entry in value.items()}
        return {name: entry for name, entry in clean.items() if entry is not None}

    def structure(self, value: dict[str, Any], shape: Any, path: str, container: str) -> dict[str, Any]:
        """Return `value` with the names and types of `shape`, and report what was wrong."""
        names_by_lower = {name.lower(): name for name in shape.members}
        clean: dict[str, Any] = {}
        for name, entry in value.items():
            lower = CLOUDFORMATION_NAMES.get(name, name).lower()
            api_name = name if name in shape.members else names_by_lower.get(lower)
            entry_path = f"{path}.{api_name or name}".lstrip(".")
            if api_name is None:
                api_name = self._report_unknown(name, shape, path, container, value)
                if api_name is None or api_name in value:  # unclear, or `value` also has the right name
                    continue
            elif api_name != name and not self.source.has_capitals:
                sentence = f"`{name}` is misspelled{_location(path)}"
                self.report("unknown-field", container, sentence, f"write `{api_name}`")
            if entry is None:
                self.nulls.append(f"{container}: {entry_path}" if container else entry_path)
                continue
            if (member := self.value(entry, shape.members[api_name], entry_path, container)) is not None:
                clean[api_name] = member
        self._report_missing(value, shape, path, container, {name.lower() for name in [*value, *clean]})
        return clean

    def _report_missing(self, value: dict[str, Any], shape: Any, path: str, container: str, present: set[str]) -> None:
        """Report required fields of `shape` that are missing or, in a container, empty.

        `present` has the names of the fields that are not missing, in lower case.
        """
        needed = [*shape.required_members, *REQUIRED.get(shape.name, [])]
        for name in dict.fromkeys(needed):
            has_misplaced_value = shape.name == "Secret" and "value" in present  # reported as value-in-secrets
            is_task = path == "" and not container  # `conform` reports a missing family
            if name.lower() not in present and not has_misplaced_value and not is_task:
                self.report("missing-field", container, f"`{name}` is missing{_location(path)}", f'add "{name}"')
        if shape.name == "ContainerDefinition":
            values_by_lower = {key.lower(): entry for key, entry in value.items()}
            for name in ("name", "image"):
                if values_by_lower.get(name) == "":
                    self.report("missing-field", container, f"`{name}` is empty", f"fill in `{name}`")

    def _report_unknown(self, name: str, shape: Any, path: str, container: str, value: dict[str, Any]) -> str | None:
        """Report a field that is not in `shape`. Return the name of the intended field, None if it is unclear."""
        lowered = name[:1].lower() + name[1:]
        if lowered == "valueFrom" and shape.name == "KeyValuePair":
            variable = value.get("name") or value.get("Name")
            sentence = f"{quoted(variable)} has `valueFrom` under `environment`, which only takes `value`"
            self.report("value-from-in-environment", container, sentence, "move the entry to `secrets`")
            if problem := source_problem(str(value[name])):
                sentence = f"{quoted(variable)} comes from {quoted(value[name])}, {problem}"
                self.report("secret-arn", container, sentence, RULES["secret-arn"].fix)
        elif lowered == "value" and shape.name == "Secret":
            variable = value.get("name") or value.get("Name")
            sentence = f"the secret {quoted(variable)} has `value`, but `secrets` only takes `valueFrom`"
            self.report("value-in-secrets", container, sentence, "put the secret's ARN into `valueFrom`")
        elif shape.name == "ContainerDefinition" and lowered in request_shape().members:
            sentence = f"`{name}` belongs to the task definition, not to a container"
            level = MISTAKE if self.source.is_whole else WARNING
            self.report(
                "unknown-field", container, sentence, "move it to the same level as `containerDefinitions`", level
            )
        elif not path and not container and lowered in _container_shape().members:
            sentence = f"`{name}` belongs to a container, not to the task definition"
            self.report("unknown-field", container, sentence, "move it into `containerDefinitions`")
        else:
            similar = difflib.get_close_matches(lowered, shape.members, n=1, cutoff=0.8)
            fix = f"write `{similar[0]}`" if similar else "remove it"
            self.report("unknown-field", container, f"ECS has no field `{name}`{_location(path)}", fix)
            return similar[0] if similar else None
        return None


def _has_type(value: Any, kind: str) -> bool:
    """Return whether `value` has the type `kind` of the model. In Python, true and false would also be integers."""
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _intended(value: Any, kind: str) -> Any:
    """Return the value that was probably intended, or None. With it, no other rule reports the field as missing."""
    if kind == "string" and isinstance(value, int | float):
        return str(value)
    if kind == "list":
        return OpenList()
    if kind in {"integer", "long"} and isinstance(value, str) and value.isdigit():
        return int(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    return None


def _location(path: str) -> str:
    """Return the end of a sentence about a field in `path`, "" for a field of the task or of a container."""
    return f" in `{path}`" if path else ""
