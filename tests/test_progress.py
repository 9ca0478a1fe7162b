"""A bar on a terminal, nothing elsewhere."""

import sys

from brdyn.progress import progress_bar


def draw(show):
    with progress_bar("a model", 10, show) as advance:
        for _ in range(10):
            advance(1)


def test_silent_when_not_a_terminal(capfd):
    draw(show=True)
    assert capfd.readouterr() == ("", "")


def test_silent_when_not_wanted(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    draw(show=False)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_speed_and_time_left(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    draw(show=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "10/10" in err
    assert "images/s" in err
    assert "left" in err


def test_a_word_stays_beside_the_bar(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar("stage 1", 2, True) as advance:
        advance(1, "loss 0.25")
        advance(1)
    assert "loss 0.25" in capfd.readouterr().err
