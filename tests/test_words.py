"""Messages of other libraries on one line, names that cannot be printed, and the JSON that holds them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brdyn.results import to_json
from brdyn.words import counted, first_line, printable, shortened


def test_a_message_has_no_address_and_one_line():
    error = ValueError("\n  cannot identify image file <_io.BytesIO object at 0x7f3a2b4c5d60>.\nsecond")
    assert first_line(error) == "cannot identify image file <_io.BytesIO>"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("<function f at 0x7f3a2b4c5d60> failed")) == "<function f> failed"


def test_text_is_cut_between_words():
    assert shortened("one two three", 13) == "one two three"
    assert shortened("one two three", 12) == "one two…"
    assert shortened("one, two three", 10) == "one, two…"
    assert shortened("x" * 20, 8) == "x" * 7 + "…"  # one word: nowhere else to cut


@given(st.text(), st.integers(2, 40))
def test_cut_text_begins_as_the_whole_does(text, most):
    short = shortened(text, most)
    assert len(short) <= most or short == text
    assert text.startswith(short.removesuffix("…"))


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(0, "image", "0 images"), (1, "image", "1 image"), (2, "class", "2 classes"), (3, "batch", "3 batches")],
)
def test_counted(number, noun, words):
    assert counted(number, noun) == words


def test_names_that_are_no_utf8_are_escaped_in_json():
    name = b"im\xff.png".decode("utf-8", "surrogateescape")
    assert printable(name) == "im\\udcff.png"
    written = json.loads(to_json({name: [name], "rows": [{"name": name}], "plain": "Größe…"}))
    assert written == {
        "im\\udcff.png": ["im\\udcff.png"],
        "rows": [{"name": "im\\udcff.png"}],
        "plain": "Größe…",
    }
    json.dumps(written, ensure_ascii=False).encode()  # which a lone surrogate would not stand
