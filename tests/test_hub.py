"""Words of errors from below, made fit to be shown."""

from brdyn.words import first_line


def test_the_first_line_is_cut_after_a_word():
    words = first_line(ValueError("alpha beta " * 30 + "\nsecond"))
    assert len(words) <= 160
    assert words.endswith(("alpha …", "beta …"))
    assert first_line(ValueError("short.")) == "short"
    assert len(first_line(ValueError("x" * 500))) == 160
    assert first_line(KeyError()) == "KeyError"


def test_no_address_in_memory_is_shown():
    class Odd:
        pass

    assert first_line(ValueError(f"cannot read {object()!r} now")) == "cannot read <object> now"
    assert "0x" not in first_line(ValueError(repr(Odd())))
