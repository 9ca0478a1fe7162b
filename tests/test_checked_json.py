"""JSON of anybody: what is strict is read, everything else is one sentence that says what is wrong."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brdyn import checked_json
from brdyn.checked_json import ADDED_LATER, ANY_SIZE, JsonError, Range, build, parse, read, take
from brdyn.errors import UsageError

BAD_BYTES = {
    "deep list": (b"[" * 100_000, "nested too deeply"),
    "deep object": (b'{"a":' * 100_000, "nested too deeply"),
    "cut short": (b'{"a": 1', "line 1, column 8"),
    "empty": (b"", "line 1, column 1"),
    "NaN": (b'{"a": NaN}', "NaN is not a number in JSON"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is not a number in JSON"),
    "float that overflows": (b'{"a": 1e999}', "1e999 is too large a number"),
    "integer of 401 digits": (b'{"a": 1' + b"0" * 400 + b"}", "is too large a number"),
    "integer of 5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "is too large a number"),
    "integer past 64 bits": (b'{"a": 18446744073709551617}', "18446744073709551617 is too large a number"),
    "a key twice": (b'{"a": {"k": 1, "k": 2}}', "'k' comes twice"),
    "latin-1": ('{"a": "ü"}'.encode("latin-1"), "byte 7 is not UTF-8"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_what_is_not_strict_is_refused(name, tmp_path):
    data, words = BAD_BYTES[name]
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(JsonError, match=words):
        read(tmp_path / "x.json")


def test_a_byte_order_mark_is_no_content():
    assert parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
                    lambda one: st.lists(one) | st.dictionaries(st.text(), one)))  # fmt: skip
def test_strict_json_is_read_as_it_is(content):
    assert parse(json.dumps(content).encode()) == content


def test_only_regular_files_of_a_sane_size_are_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path, words in (
        (tmp_path / "pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (tmp_path, "is a folder"),
        (tmp_path / "link", "no such file"),
        (tmp_path / ("x" * 300), "file name too long"),
    ):
        with pytest.raises(JsonError, match=words):
            read(checked_json.expanded(path))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 * 2**30)  # takes no room on the disk
    monkeypatch.setattr(checked_json, "MOST_BYTES", 2**20)
    with pytest.raises(JsonError, match="larger than 1 MB"):
        read(tmp_path / "large")


SHAPE = {
    "n": int,
    "x": float,
    "rows": [{"name": str, "y?": (float, None)}],
    "by": {str: [int]},
    "free": object,
}
GOOD = {"n": 1, "x": 2, "rows": [{"name": "a"}, {"name": "b", "y": None}], "by": {"k": [1, 2]}, "free": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": True}, "n is true instead of a whole number"),
        ({"n": 1.0}, "n is 1.0 instead of a whole number"),
        ({"x": "2"}, 'x is "2" instead of a number'),
        ({"x": None}, "x is null instead of a number"),
        ({"rows": {}}, "rows is {} instead of a list"),
        ({"rows": [{}]}, "rows[0] has no 'name'"),
        ({"rows": [{"name": "a"}, {"name": "b", "y": "z"}]}, 'rows[1].y is "z" instead of a number or null'),
        ({"by": {"k": [1, False]}}, "by.k[1] is false instead of a whole number"),
        ({"by": []}, "by is [] instead of an object"),
    ],
)
def test_what_is_of_another_shape_is_named(change, words):
    assert take(GOOD, SHAPE) == GOOD
    with pytest.raises(JsonError) as caught:
        take({**GOOD, **change}, SHAPE)
    assert str(caught.value) == words


def test_a_key_that_lacks_and_another_kind_at_the_top_are_named():
    with pytest.raises(JsonError, match="it has no 'free'"):
        take({key: value for key, value in GOOD.items() if key != "free"}, SHAPE)
    with pytest.raises(JsonError, match=r"it is \[\] instead of an object"):
        take([], SHAPE)


@dataclass(frozen=True)
class Part:
    share: Annotated[float | None, Range(0, 1)]
    name: str = "head"


@dataclass(frozen=True)
class Record:
    n: int
    pair: tuple[float, float]
    parts: tuple[Part, ...] = ()
    by: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self):
        if self.n == 13:
            raise UsageError("13 is unlucky")


RECORD = {"n": 1, "pair": [1, 2.5], "parts": [{"share": 1, "name": "a"}], "by": {"a": 3}}


@dataclass
class Grown:
    share: float
    placements: int = 3
    below: float | None = field(default=None, metadata=ADDED_LATER)


BUILT = Record(1, (1, 2.5), (Part(1, "a"),), {"a": 3})


def test_a_dataclass_of_a_result_has_all_of_its_entries_and_may_have_more():
    assert take({"all": [{**RECORD, "more": 0}, None]}, {"all": [(Record, None)]}) == {"all": [BUILT, None]}
    assert take({**RECORD, "n": 10**7}, Record).n == 10**7
    for name in RECORD:
        with pytest.raises(JsonError, match=f"^it has no '{name}'$"):
            take({key: value for key, value in RECORD.items() if key != name}, Record)
    with pytest.raises(JsonError, match=r"^parts\[0\] has no 'name'$"):
        take({**RECORD, "parts": [{"share": 0.5}]}, Record)


def test_a_dataclass_of_a_result_may_lack_what_was_added_later():
    found = take({"share": 0.5, "placements": 1}, Grown)
    assert found == Grown(0.5, 1, None)
    with pytest.raises(JsonError, match=r"^it has no 'placements'$"):
        take({"share": 0.5, "below": 0.1}, Grown)
    with pytest.raises(JsonError, match=r'^below is "a" instead of a number or null$'):
        take({"share": 0.5, "placements": 1, "below": "a"}, Grown)


def test_a_dataclass_of_a_config_lacks_defaults_and_has_nothing_more():
    assert build(Record, {"n": 1, "pair": [1, 2]}, "it.json") == Record(1, (1.0, 2.0))
    assert build(Record, {**RECORD, "parts": [{"share": None}], "more": 0}, "it.json", more=True).parts == (Part(None),)
    assert isinstance(build(Record, RECORD, "it.json").pair[0], float)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"more": 0}, "it has an entry 'more' that brdyn does not know"),
        ({"parts": [{"share": 1, "more": 0}]}, "parts[0] has an entry 'more' that brdyn does not know"),
        ({"parts": [{"share": 2}]}, "parts[0].share is 2 instead of a number from 0 to 1"),
        ({"parts": [{"share": "1"}]}, 'parts[0].share is "1" instead of a number or null'),
        ({"n": 10**7}, f"n is 10000000 instead of a number from {ANY_SIZE.low} to {ANY_SIZE.high}"),
        (
            {"by": {"a": 10**7}},
            f"by.a is 10000000 instead of a number from {ANY_SIZE.low} to {ANY_SIZE.high}",
        ),
        ({"by": {"a": "b"}}, 'by.a is "b" instead of a whole number'),
        ({"pair": [1]}, "pair has 1 entries instead of 2"),
        ({"n": 13}, "13 is unlucky"),
    ],
)
def test_what_a_config_may_not_have_is_named(change, words):
    with pytest.raises(UsageError) as caught:
        build(Record, {**RECORD, **change}, "it.json")
    assert str(caught.value) == f"it.json: {words}"
