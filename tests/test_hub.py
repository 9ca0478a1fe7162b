"""Words of errors from below, made fit to be shown."""

from brdyn import hub


def test_the_first_line_is_cut_after_a_word():
    words = hub.first_line(ValueError("alpha beta " * 30 + "\nsecond"))
    assert len(words) <= 160
    assert words.endswith(("alpha …", "beta …"))
    assert hub.first_line(ValueError("short.")) == "short"
    assert len(hub.first_line(ValueError("x" * 500))) == 160
    assert hub.first_line(KeyError()) == "KeyError"


def test_no_address_in_memory_is_shown():
    class Odd:
        pass

    assert hub.first_line(ValueError(f"cannot read {object()!r} now")) == "cannot read <object> now"
    assert "0x" not in hub.first_line(ValueError(repr(Odd())))
