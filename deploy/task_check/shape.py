"""Converts a document to the names and types of RegisterTaskDefinition, as botocore's model defines them."""

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
# Apart from capitals, the only name in CloudFormation that differs from the API's.
CLOUDFORMATION = {"ProxyConfigurationProperties": "properties"}
WORDS = {"string": "text in quotes", "integer": "a whole number", "boolean": "true or false", "long": "a whole number"}
WORDS |= {"structure": "an object", "list": "an array", "map": "an object"}
TYPES: dict[str, type | tuple[type, ...]] = {"structure": dict, "map": dict, "list": list, "string": str}
TYPES |= {"integer": int, "long": int, "boolean": bool, "double": (int, float), "float": (int, float)}


@cache
def _ecs() -> Any:
    from botocore.session import get_session  # noqa: PLC0415 - the command reports in one sentence when it is missing

    return get_session().get_service_model("ecs")


def model() -> Any:
    """Return botocore's shape of the input of RegisterTaskDefinition."""
    return _ecs().operation_model("RegisterTaskDefinition").input_shape


def _output_fields() -> set[str]:
    """Return the fields that only a registered task definition has, which a definition to register must not have."""
    return set(_ecs().shape_for("TaskDefinition").members) - set(model().members)


def conform(source: Source) -> tuple[dict[str, Any], list[Finding]]:
    """Return the document with the API's names and types, and a finding for each name and type that was wrong.

    Other rules can rely on both, because unknown fields and values of the wrong type are left out.
    """
    conversion = _Conversion(source)
    output_fields = {name.lower() for name in _output_fields()}
    document = {name: value for name, value in source.document.items() if name.lower() not in output_fields}
    clean = conversion.structure(document, model(), "", "")
    if source.whole and not source.capitals and "family" not in clean:
        conversion.add("missing-field", "", "`family` is missing", 'add "family": "<name>"')
    if conversion.nulls:
        more = f" and {len(conversion.nulls) - 3} more" if len(conversion.nulls) > 3 else ""
        fields = ", ".join(f"`{name}`" for name in conversion.nulls[:3])
        level = HINT if source.registered else WARNING
        fix = "leave these fields out"
        conversion.findings.append(
            Finding("null-field", level, "", f"the AWS CLI rejects null, which is the value of {fields}{more}", fix)
        )
    for name in source.repeated:
        sentence = f"one object has the key `{name}` twice; only the last one counts"
        conversion.add("repeated-key", "", sentence, "merge the two")
    return clean, conversion.findings


@dataclass
class _Conversion:
    source: Source
    findings: list[Finding] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)
    _container: str = ""  # the name of the container that is being converted, for its lists

    def add(self, rule: str, container: str, sentence: str, fix: str, level: str = MISTAKE) -> None:
        self.findings.append(Finding(rule, level, container, sentence, fix))

    def value(self, value: Any, shape: Any, path: str, container: str) -> Any:  # noqa: PLR0911 - one for each kind of shape
        """Return `value` in the form of `shape`, or None if it must be left out.

        `path` is the field in `container`, or in the task if `container` is empty.
        """
        kind = shape.type_name
        if isinstance(value, str) and is_open(value):
            return OpenList() if kind == "list" else (None if kind in {"structure", "map"} else value)
        value = self._converted(value, kind)
        if not _fits(value, kind):
            self._report_wrong_type(value, kind, path, container)
            return _nearest(value, kind)
        if kind == "structure":
            return self.structure(value, shape, path, container)
        if kind == "list":
            return self._list(value, shape, path)
        if kind == "map":
            return self._map(value, shape, path, container)
        if getattr(shape, "enum", None) and value not in shape.enum:
            if value == "" and shape.name != "Compatibility":
                return None
            sentence = f"`{path}` is {quoted(value)}, which ECS does not accept"
            self.add("unknown-value", container, sentence, f"use one of: {', '.join(shape.enum)}")
            return next((each for each in shape.enum if each.lower() == value.lower()), mark_open(value))
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
            actual = WORDS["list" if isinstance(value, list) else "map"]
        fix = "correct it"
        if kind == "string" and isinstance(value, int | float):
            fix = f'write "{text}"'
        elif kind in {"integer", "boolean"} and isinstance(value, str) and (number(value) or text in {"true", "false"}):
            fix = "write it without quotes"
        self.add("wrong-type", container, f"`{path}` must be {WORDS[kind]}, not {actual}", fix)

    def _converted(self, value: Any, kind: str) -> Any:
        """Return `value` as CloudFormation would convert it; other formats convert nothing."""
        if isinstance(value, float) and value.is_integer() and kind in {"integer", "long"}:
            return int(value)
        if not self.source.text_numbers:
            return value
        if kind in {"integer", "long"} and isinstance(value, str) and value.strip().isdigit():
            return int(value)
        if kind == "boolean" and str(value).lower() in {"true", "false"}:
            return str(value).lower() == "true"
        if kind == "string" and isinstance(value, int | float):
            return str(value).lower() if isinstance(value, bool) else str(value)
        return value

    def _list(self, value: list[Any], shape: Any, path: str) -> list[Any]:
        entries: list[Any] = []
        is_whole = not isinstance(value, OpenList)
        for at, entry in enumerate(value):
            here, container = f"{path}[{at}]", ""
            if path == "containerDefinitions" and isinstance(entry, dict):
                container = str(entry.get("name") or entry.get("Name") or here)
                here = ""
            if entry is None:
                self.nulls.append(here)
                continue
            clean = self.value(entry, shape.member, here, container or self._container)
            is_whole = is_whole and not (clean is None and is_open(entry))
            if clean is not None:
                entries.append(clean)
        return entries if is_whole else OpenList(entries)

    def _map(self, value: dict[str, Any], shape: Any, path: str, container: str) -> dict[str, Any]:
        clean = {name: self.value(entry, shape.value, f"{path}.{name}", container) for name, entry in value.items()}
        return {name: entry for name, entry in clean.items() if entry is not None}

    def structure(self, value: dict[str, Any], shape: Any, path: str, container: str) -> dict[str, Any]:
        self._container = container
        lower = {name.lower(): name for name in shape.members}
        clean: dict[str, Any] = {}
        for name, entry in value.items():
            known = name if name in shape.members else lower.get(CLOUDFORMATION.get(name, name).lower())
            here = f"{path}.{known or name}".lstrip(".")
            if known is None:
                known = self._unknown(name, shape, path, container, value)
                if known is None or known in value:
                    continue
            elif known != name and not self.source.capitals:
                self.add("unknown-field", container, f"`{name}` is misspelled{_in(path)}", f"write `{known}`")
            if entry is None:
                self.nulls.append(f"{container}: {here}" if container else here)
                continue
            if (member := self.value(entry, shape.members[known], here, container)) is not None:
                clean[known] = member
        self._required(value, shape, path, container, {name.lower() for name in [*value, *clean]})
        self._container = container
        return clean

    def _required(self, value: dict[str, Any], shape: Any, path: str, container: str, present: set[str]) -> None:
        needed = [*shape.required_members, *REQUIRED.get(shape.name, [])]
        for name in dict.fromkeys(needed):
            is_secret = shape.name == "Secret" and "value" in present
            is_task = path == "" and not container
            if name.lower() not in present and not is_secret and not is_task:
                self.add("missing-field", container, f"`{name}` is missing{_in(path)}", f'add "{name}"')
        if shape.name == "ContainerDefinition":
            lower = {key.lower(): entry for key, entry in value.items()}
            for name in ("name", "image"):
                if lower.get(name) == "":
                    self.add("missing-field", container, f"`{name}` is empty", f"fill in `{name}`")

    def _unknown(self, name: str, shape: Any, path: str, container: str, value: dict[str, Any]) -> str | None:
        """Report a field that is not in `shape`. Return the name of the intended field, None if it is unclear."""
        lowered = name[:1].lower() + name[1:]
        if lowered == "valueFrom" and shape.name == "KeyValuePair":
            variable = value.get("name") or value.get("Name")
            sentence = f"{quoted(variable)} has `valueFrom` under `environment`, which only takes `value`"
            self.add("value-from-in-environment", container, sentence, "move the entry to `secrets`")
            if problem := source_problem(str(value[name])):
                sentence = f"{quoted(variable)} comes from {quoted(value[name])}, {problem}"
                self.add("secret-arn", container, sentence, RULES["secret-arn"].fix)
        elif lowered == "value" and shape.name == "Secret":
            variable = value.get("name") or value.get("Name")
            sentence = f"the secret {quoted(variable)} has `value`, but `secrets` only takes `valueFrom`"
            self.add("value-in-secrets", container, sentence, "put the secret's ARN into `valueFrom`")
        elif shape.name == "ContainerDefinition" and lowered in model().members:
            sentence = f"`{name}` belongs to the task definition, not to a container"
            level = WARNING if not self.source.whole else MISTAKE
            self.add("unknown-field", container, sentence, "move it to the same level as `containerDefinitions`", level)
        elif not path and not container and lowered in model().members["containerDefinitions"].member.members:
            sentence = f"`{name}` belongs to a container, not to the task definition"
            self.add("unknown-field", container, sentence, "move it into `containerDefinitions`")
        else:
            close = difflib.get_close_matches(lowered, shape.members, 1, 0.8)
            fix = f"write `{close[0]}`" if close else "remove it"
            self.add("unknown-field", container, f"ECS has no field `{name}`{_in(path)}", fix)
            return close[0] if close else None
        return None


def _fits(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _nearest(value: Any, kind: str) -> Any:
    """Return the value that was probably intended, so that no other rule reports it as missing, or None."""
    if kind == "string" and isinstance(value, int | float):
        return str(value)
    if kind == "list":
        return OpenList()
    if kind in {"integer", "long"} and isinstance(value, str) and value.isdigit():
        return int(value)
    return value == "true" if kind == "boolean" and value in ("true", "false") else None


def _in(path: str) -> str:
    return f" in `{path}`" if path else ""
