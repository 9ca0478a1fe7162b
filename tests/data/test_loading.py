"""Loader processes that die, fail or have nowhere to put their images: the run ends in one line, at once."""

import multiprocessing.process
import multiprocessing.resource_sharer
import os
import resource
import signal
import tempfile
import time
from types import SimpleNamespace

import pytest
from torchvision.transforms.functional import to_tensor

from brdyn.data import load_images, loading
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import BrdynError, UsageError


class Odd(Exception):
    """One that does not survive the way to another process."""

    def __reduce__(self):
        raise TypeError("cannot be pickled")


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def left(_):
    raise SystemExit(3)


def without_files(_):
    raise OSError(24, "Too many open files")


def without_memory(_):
    raise MemoryError


def through(folder, transform, way):
    model = SimpleNamespace(transform=transform, info=SimpleNamespace(patch=4, image_size=(36, 40)))
    images = load_images(folder, model)
    if way == "in order":
        return sum(map(len, images.batches(8, workers=2)))
    return sum(len(batch) for step in ShuffledBatches(images, 8, workers=2).batches(0, 5) for batch in step)


@pytest.mark.parametrize("way", ["in order", "shuffled"])
@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (killed, "a loader process died"),
        (left, "a loader process died"),
        (without_files, "Too many open files; use fewer `workers`"),
        (without_memory, "MemoryError; use fewer `workers`"),
    ],
)
def test_a_failing_process_ends_the_run_at_once(noise_folder, transform, words, way):
    start = time.monotonic()
    with pytest.raises(BrdynError, match=words):
        through(noise_folder, transform, way)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("way", ["in order", "shuffled"])
def test_a_process_that_cannot_hand_over_a_batch(noise_folder, monkeypatch, way):
    def no_socket(_):
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(multiprocessing.resource_sharer._ResourceSharer, "_start", no_socket)
    start = time.monotonic()
    with pytest.raises(BrdynError, match="died or could not hand over its images"):
        through(noise_folder, to_tensor, way)
    assert time.monotonic() - start < 10


def test_errors_that_cannot_be_pickled_are_of_their_image(noise_folder):
    def odd(_):
        raise Odd("a strange one")

    with pytest.raises(BrdynError, match=r"none of the 40 images .*00\.png: a strange one"):
        through(noise_folder, odd, "in order")


@pytest.mark.parametrize("error", [UsageError("asked wrongly"), BrdynError("failed"), Odd("strange")])
def test_errors_of_a_reader_come_as_what_they_are(error):
    class Reader:
        def __getitem__(self, position):
            raise error

    kind = UsageError if isinstance(error, UsageError) else BrdynError
    with pytest.raises(kind, match=str(error)) as found:
        list(loading.load(Reader(), iter([[0]]), 1, workers=1, batch_bytes=1, pin=False))
    assert type(found.value) is kind


def in_a_fork(prepare, work):
    """What another process, started from this one, exits with."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(20)  # instead of waiting without end
    code = 1
    try:
        prepare()
        code = work()
    finally:
        os._exit(code)


def far_down(folder):
    """A long `TMPDIR`, in a process that has made nothing in a shorter one."""
    tempfile.tempdir = str(folder)
    multiprocessing.process.current_process()._config.pop("tempdir", None)


def few_files(_):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8,) * 2)


@pytest.mark.parametrize("trouble", [far_down, few_files])
def test_a_long_folder_of_temporary_files_and_few_open_files(noise_folder, tmp_path, trouble):
    """Everything is read all the same."""
    deep = tmp_path / ("x" * 110)
    deep.mkdir()
    assert in_a_fork(lambda: trouble(deep), lambda: through(noise_folder, to_tensor, "in order")) == 40


def test_sockets_that_fit_nowhere(monkeypatch):
    monkeypatch.setattr(loading, "SHORT_FOLDERS", ())
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 120)
    assert not loading.short_sockets()
