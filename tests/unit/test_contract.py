"""Undocumented names: a rename, a removal or other parameters are reported in one sentence."""

from __future__ import annotations

import pytest

from hello_service import contract
from hello_service.contract import Name


@pytest.mark.parametrize("part", contract.NAMES)
def test_the_installed_libraries_have_every_name(part: str) -> None:
    assert contract.broken(part) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (Name("json:dumps"), None),
        (Name("json:JSONEncoder.encode", ("self", "o")), None),
        (Name("json:gone | json:dumps"), None),
        (Name("json:JSONEncoder.__init__", uses=("skipkeys",)), None),
        (Name("json:gone"), "json:gone is missing: gone was renamed or removed."),
        (Name("no.such"), "Module no.such can't be imported."),
        (Name("json:JSONEncoder.gone"), "json:JSONEncoder.gone is missing: gone was renamed or removed."),
        (
            Name("json:JSONEncoder.encode", ("self", "x")),
            "json:JSONEncoder.encode takes (self, o), expected (self, x).",
        ),
        (Name("json:JSONEncoder.__init__", uses=("gone",)), "json:JSONEncoder.__init__ no longer uses gone."),
    ],
)
def test_a_changed_name_is_reported(name: Name, sentence: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [] if sentence is None else [sentence]
    monkeypatch.setattr(contract, "NAMES", {"part": [name]})
    monkeypatch.setattr(contract, "WITHOUT", {"part": "The part is left out."})

    assert contract.broken("part") == expected
    assert contract.check() == ({"part": [*expected, "The part is left out."]} if expected else {})
