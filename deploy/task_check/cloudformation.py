"""Resolves CloudFormation's functions as far as the file allows, and marks the rest as open (not known yet)."""

from __future__ import annotations

from typing import Any

from task_check.values import mark_open

_NOTHING = object()  # the value of `Ref: AWS::NoValue`, which removes its field


def resolve(value: Any) -> Any:
    """Return `value` with the results of `Ref` and `Fn::...` in their places."""
    result = _resolve(value)
    return {} if result is _NOTHING else result  # properties that are `AWS::NoValue` have no fields


def _resolve(value: Any) -> Any:
    if isinstance(value, list):
        return [entry for entry in map(_resolve, value) if entry is not _NOTHING]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(name, argument)] = value.items()
        if name == "Ref" or name.startswith("Fn::"):
            return _call(name, argument)
    # Fn::Transform can be next to other names. It is left out, because the fields that it adds are not in the file.
    members = {name: _resolve(member) for name, member in value.items() if not name.startswith("Fn::")}
    return {name: member for name, member in members.items() if member is not _NOTHING}


def _call(name: str, argument: Any) -> Any:
    """Return the result of the function `name`. Parts that the file does not contain are marked as open."""
    if name == "Ref":
        return _NOTHING if argument == "AWS::NoValue" else mark_open(f"${{{argument}}}")
    if name == "Fn::Sub":
        # reading.py has already marked each `${NAME}` in the text, so the values in `argument[1]` are not needed.
        return _resolve(argument[0] if isinstance(argument, list) and argument else argument)
    if name == "Fn::If" and isinstance(argument, list) and len(argument) == 3:
        # The condition is unknown, so the first branch that has a value is checked.
        value_if_true, value_if_false = _resolve(argument[1]), _resolve(argument[2])
        return value_if_false if value_if_true is _NOTHING else value_if_true
    if name == "Fn::Join" and isinstance(argument, list) and len(argument) == 2 and isinstance(argument[1], list):
        return str(argument[0]).join(map(str, _resolve(argument[1])))
    return mark_open(f"${{{name.removeprefix('Fn::')}}}")
