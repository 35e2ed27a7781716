"""Tests of the contract with the libraries: a renamed, removed or changed name is reported in one sentence."""

from __future__ import annotations

import inspect
import json
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from hello_service import contract
from hello_service.app import create_app
from hello_service.contract import Name
from hello_service.observability import logs
from hello_service.serving import server
from hello_service.settings import Settings

# A function that renames something in an installed library, as a new release might, until the monkeypatch is undone.
Rename = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("part", contract.NAMES)
def test_the_installed_libraries_have_every_name(part: str) -> None:
    assert contract.find_changes(part) == []


def test_the_effect_of_each_missing_part_is_described() -> None:
    assert contract.WITHOUT.keys() == contract.NAMES.keys()
    assert contract.NAMES.keys() >= contract.REQUIRED | contract.TOOLS  # these contain no misspelled part


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (Name("json:dumps"), None),
        (Name("json:JSONEncoder.encode", parameters=("self", "o")), None),
        (Name("json:gone", alternative=Name("json:dumps")), None),
        (Name("json:JSONEncoder.__init__", uses=("skipkeys",)), None),
        (Name("json:JSONEncoder.iterencode", uses=("_one_shot",)), None),
        (Name("json:gone"), "json:gone is missing: gone was renamed or removed."),
        (Name("json:gone", alternative=Name("json:lost")), "json:gone is missing: gone was renamed or removed."),
        (Name("no.such"), "Module no.such can't be imported."),
        (Name("json:JSONEncoder.gone"), "json:JSONEncoder.gone is missing: gone was renamed or removed."),
        (
            Name("json:JSONEncoder.encode", parameters=("self", "x")),
            "json:JSONEncoder.encode takes (self, o), expected (self, x).",
        ),
        (Name("json:JSONEncoder.__init__", uses=("gone",)), "json:JSONEncoder.__init__ no longer uses gone."),
        (Name("time:time", uses=("gone",)), "time:time is no longer a Python function."),
    ],
)
def test_only_a_changed_name_is_reported(name: Name, sentence: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "NAMES", {"part": [name]})
    monkeypatch.setattr(contract, "WITHOUT", {"part": "The part is left out."})

    if sentence is None:
        assert contract.find_changes("part") == []
        assert contract.check() == {}
    else:
        assert contract.find_changes("part") == [sentence]
        assert contract.check() == {"part": [sentence, "The part is left out."]}


def renames(name: Name) -> Iterator[tuple[str, Rename]]:
    """Yield each rename that the check of `name` must report: its description, and a function that does it."""
    module_name, _, attributes = name.path.partition(":")
    module = import_module(module_name)
    chain = attributes.split(".") if attributes else []
    target: Any = module
    for length, attribute in enumerate(chain, start=1):
        yield f"{name.path} {attribute}", _attribute_rename(module, chain[:length])
        target = getattr(target, attribute)
    # The parameters of a class are those of its `__init__`.
    function: Any = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    function = getattr(function, "__func__", function)  # the function of a bound method
    for word in (*name.parameters, *name.uses):
        yield f"{name.path} {word}", _word_rename(function, word)


class WithoutAttribute:
    """A view of `original` that lacks the attribute at the end of `chain`, as after a rename."""

    def __init__(self, original: Any, chain: list[str]) -> None:
        self.original, self.chain = original, chain

    def __getattr__(self, name: str) -> Any:
        first, *rest = self.chain
        if name == first and not rest:
            raise AttributeError(name)
        value = getattr(self.original, name)
        return WithoutAttribute(value, rest) if name == first else value


def _attribute_rename(module: Any, chain: list[str]) -> Rename:
    """Return a rename of the attribute at the end of `chain`, which starts in `module`."""
    *owners, attribute = chain
    owner = module
    for name in owners:
        owner = getattr(owner, name)

    def rename(monkeypatch: pytest.MonkeyPatch) -> None:
        # An instance, or a class with another metaclass, may not allow the change, so a view replaces it.
        is_changeable = inspect.ismodule(owner) or type(owner) in {type, ABCMeta}
        if not is_changeable:
            monkeypatch.setattr(module, chain[0], WithoutAttribute(getattr(module, chain[0]), chain[1:]))
            return
        holder = owner
        if inspect.isclass(owner):
            holder = next(base for base in owner.__mro__ if attribute in vars(base))
        monkeypatch.setattr(holder, f"{attribute}_renamed", vars(holder)[attribute], raising=False)
        monkeypatch.delattr(holder, attribute)

    return rename


def _word_rename(function: Any, word: str) -> Rename:
    """Return a rename of `word`, a parameter, name or constant in the code of `function`."""

    def rename(monkeypatch: pytest.MonkeyPatch) -> None:
        code = function.__code__
        replacements: dict[str, tuple[Any, ...]] = {}
        for field in ("co_names", "co_varnames", "co_consts"):
            items = getattr(code, field)
            replacements[field] = tuple(f"{word}_renamed" if item == word else item for item in items)
        monkeypatch.setattr(function, "__code__", code.replace(**replacements))

    return rename


def installed_name(name: Name) -> Name:
    """Return `name`, or the one of its alternatives that the installed release has."""
    if name.alternative is None or contract._compare_with_library(name) is None:
        return name
    return installed_name(name.alternative)


# Each rename that the checks of the installed libraries must report, by its description, with the part that it breaks.
RENAMES = {
    f"{part}: {description}": (part, rename)
    for part, names in contract.NAMES.items()
    for name in names
    for description, rename in renames(installed_name(name))
}
# A serving process does not check TOOLS, such as the doctor.
SERVING_RENAMES = {
    description: (part, rename) for description, (part, rename) in RENAMES.items() if part not in contract.TOOLS
}


@pytest.mark.parametrize(("part", "rename"), RENAMES.values(), ids=RENAMES)
def test_each_rename_is_reported(part: str, rename: Rename) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rename(monkeypatch)
        sentences = contract.find_changes(part)
        broken_parts = contract.check()

    assert sentences
    if part not in contract.TOOLS:
        assert broken_parts[part] == [*sentences, contract.WITHOUT[part]]
    assert contract.find_changes(part) == []  # the rename was undone


@pytest.mark.parametrize(("part", "rename"), SERVING_RENAMES.values(), ids=SERVING_RENAMES)
async def test_each_rename_is_one_warning_at_start(
    part: str, rename: Rename, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service starts without the changed part. It refuses to start only if it could serve nothing."""
    settings = Settings(port=0, host="127.0.0.1", log_format="json")
    with pytest.MonkeyPatch.context() as monkeypatch:
        rename(monkeypatch)
        broken = contract.check()
        if part in contract.REQUIRED:
            assert server.run({"HOST": "127.0.0.1", "PORT": "0"}) == server.EXIT_CANNOT_START
        else:
            logs.configure(settings, ids=dict)  # as outside of a span, dict() returns no ids
            async with create_app(settings, environ={}, broken=broken).test_app():
                pass
    lines = capsys.readouterr().err.splitlines()

    if part in contract.REQUIRED:
        assert lines == [" ".join(sentences) for sentences in broken.values()]
        return
    entries = [json.loads(line) for line in lines]
    warnings = [entry["event"] for entry in entries if entry["level"] == "warning"]
    for sentences in broken.values():
        assert warnings.count(" ".join(sentences)) == 1


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ddtrace.internal.writer", None)

    assert contract.check()["trace loss"][0] == "Module ddtrace.internal.writer can't be imported."
