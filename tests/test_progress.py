"""A bar on a terminal; elsewhere a line at once and one every ten seconds; nothing where none is wanted."""

import io
import sys
from itertools import pairwise

import pytest

from brdyn import progress
from brdyn.progress import CLEAR, EVERY, Stage, Teller, hush, progress_bar, stage, telling


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told(clock):
    """A teller that began at 100 s, and what it wrote."""
    written = []
    teller = Teller(written.append, clock=clock, started=100.0)
    return teller, written


def passes(teller, clock, seconds):
    """Time goes by, looked at each second."""
    for _ in range(seconds):
        clock.now += 1
        teller.beat()


def test_a_stage_is_said_at_once_and_every_ten_seconds(told, clock):
    teller, written = told
    clock.now = 102.0
    loading = Stage("loading torch")
    teller.begin(loading)
    assert written == ["[0:02] loading torch\n"]
    passes(teller, clock, 25)
    assert written[1:] == ["[0:12] still loading torch\n", "[0:22] still loading torch\n"]
    teller.end(loading)
    passes(teller, clock, 25)
    assert len(written) == 3  # nothing goes on


def test_a_count_tells_speed_and_time_left(told, clock):
    teller, written = told
    reading = Stage("a ViT: reading", 3700)
    teller.begin(reading)
    assert written == ["[0:00] a ViT: reading 3700 images\n"]
    passes(teller, clock, 10)
    reading.done, reading.note = 100, "loss 0.5"
    passes(teller, clock, 10)  # 100 in 20 seconds: 3600 more take 720
    assert written[1:] == [
        "[0:10] a ViT: reading 0/3700 images\n",
        "[0:20] a ViT: reading 100/3700 images, 5.0 images/s, 12:00 left, loss 0.5\n",
    ]
    clock.now = 100 + 7205.0
    teller.beat()
    assert written[-1].startswith("[2:00:05] ")


def test_a_batch_that_takes_long_is_told_in_parts(clock, monkeypatch):
    """A quarter of the first eight images in ten seconds: 14 more take 70."""
    written = []
    monkeypatch.setattr(progress, "_is_terminal", lambda: False)
    monkeypatch.setattr(progress, "_to_stderr", written.append)
    with telling() as teller, progress_bar("a ViT: reading", 16, show=True) as advance:
        monkeypatch.setattr(teller, "clock", clock)
        monkeypatch.setattr(teller, "_started", clock())
        reading = teller._stages[-1]
        reading.since = teller._last = clock()
        progress.within(1, 4, count=8)
        passes(teller, clock, 10)
        assert written[-1] == "[0:10] a ViT: reading 0/16 images, 0.2 images/s, 1:10 left\n"
        advance(8)
        passes(teller, clock, 10)
        assert written[-1] == "[0:20] a ViT: reading 8/16 images, 0.4 images/s, 0:20 left\n"


def test_the_innermost_is_told(told, clock):
    teller, written = told
    outer, inner = Stage("computing"), Stage("a ViT: reading", 10)
    teller.begin(outer, at_once=False)
    assert written == []
    teller.begin(inner)
    passes(teller, clock, 10)
    teller.end(inner)
    passes(teller, clock, 10)
    assert [line[7:-1] for line in written] == [
        "a ViT: reading 10 images", "a ViT: reading 0/10 images", "still computing"
    ]  # fmt: skip


def test_no_silence_is_longer_than_asked_for(told, clock):
    teller, written = told
    teller.begin(Stage("computing"))
    times = []
    for _ in range(300):
        before = len(written)
        passes(teller, clock, 1)
        times += [clock.now] * (len(written) - before)
    assert max(second - first for first, second in pairwise(times)) <= EVERY


def test_a_terminal_has_one_line_that_is_written_over(clock):
    written = []
    teller = Teller(written.append, terminal=True, clock=clock, started=100.0)
    drawing, bar = Stage("drawing"), Stage("reading", 5)
    teller.begin(drawing)
    assert written == ["[0:00] drawing …"]
    passes(teller, clock, 10)
    assert written[1:] == [CLEAR, "[0:10] still drawing …"]
    teller.begin(bar)
    passes(teller, clock, 30)
    assert written[3:] == [CLEAR]  # the place is the bar's
    teller.end(bar)
    teller.end(drawing)
    teller.clear()
    assert len(written) == 4  # nothing of anybody else's is taken away


def test_a_command_tells_and_a_quiet_one_does_not(capfd):
    with telling():
        with stage("drawing"), progress_bar("a model: reading", 10, True) as advance:
            advance(10)
        hush()
        with stage("drawing again"), progress_bar("a model", 10, True) as advance:
            advance(10)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.partition("] ")[2] for line in err.splitlines()] == ["drawing", "a model: reading 10 images"]


def test_a_library_says_nothing(capfd):
    with stage("drawing"), progress_bar("a model", 10, True) as advance:
        advance(10)
    assert capfd.readouterr() == ("", "")


def test_a_stream_of_somebodys_own_and_a_closed_one(monkeypatch):
    own = io.StringIO()
    monkeypatch.setattr(sys, "stderr", own)
    with telling(), stage("drawing"):
        pass
    assert own.getvalue().endswith("] drawing\n")
    own.close()
    monkeypatch.setattr(progress, "_is_terminal", lambda: False)
    with telling(), stage("drawing"):
        pass


def test_silent_when_not_wanted(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar("a model", 10, show=False) as advance:
        advance(10)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_speed_and_time_left(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar("a model", 10, True) as advance:
        for _ in range(10):
            advance(1)
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
