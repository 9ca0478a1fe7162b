"""Which source a name or path means."""

from __future__ import annotations

import os
from pathlib import Path

from brdyn.arguments import checked
from brdyn.checked_json import expanded
from brdyn.choices import one_of
from brdyn.data import parquet, webdataset
from brdyn.data.columns import Asked
from brdyn.data.files import check_regular, shown
from brdyn.data.folders import EXTENSIONS, FileSource, no_such_kind, walk
from brdyn.data.pairs import PairedSource
from brdyn.data.row_sets import hub_source, is_saved, saved_source
from brdyn.data.samples import SampleSource
from brdyn.data.sources import ImageSource, Skipped
from brdyn.data.targets import DEPTH, MASK
from brdyn.errors import UsageError, permitted
from brdyn.progress import tell
from brdyn.words import counted

SAMPLES = "samples"
OTHERS = {
    ".zip": "a zip archive; unpack it and give the folder",
    **dict.fromkeys((".gz", ".xz", ".bz2", ".zst"), "compressed; unpack it and give the folder"),
    ".tgz": "a compressed archive; unpack it and give the folder",
    **dict.fromkeys((".7z", ".rar"), "an archive; unpack it and give the folder"),
    ".arrow": "an Arrow file; give the folder that save_to_disk made",
    ".npy": "an array",
    ".npz": "a file of arrays",
    **dict.fromkeys((".h5", ".hdf5"), "an HDF5 file"),
    ".mat": "a MATLAB file",
    ".mdb": "an LMDB database",
    ".tfrecord": "a TFRecord file",
    **dict.fromkeys((".csv", ".tsv"), "a table of text"),
    ".json": "JSON",
    ".jsonl": "JSON lines",
    **dict.fromkeys((".txt", ".md"), "text"),
    ".html": "a web page",
    ".pdf": "a PDF document",
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "a video"),
    **dict.fromkeys((".safetensors", ".pth", ".pt"), "a file of weights"),
}
READABLE = "a folder, an image, a parquet or webdataset tar file"


@checked
@permitted()
def find_source(
    images: str | Path,
    split: str | None = None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    columns_where_there: bool = False,
    target: str | None = None,
    target_column: str | None = None,
) -> ImageSource:
    """The source a user means by `--images`.

    Parameters
    ----------
    images : str or path
        `samples`, a folder (searched recursively), an image, a parquet or tar file, or a hub data set id
        (`owner/name`,
        with `:configuration` where wanted). `@SPLIT` may follow a path or id.
    split : str, optional
        Of what holds several; of a hub data set `train` when not given.
    image_column, label_column : str, optional
        Of tables; see :mod:`brdyn.data.columns` for the choice without.
    columns_where_there : bool
        Go by that choice where the set has no such columns, instead of refusing it.
    target : {"mask", "depth"}, optional
        What is to be read beside each image.
    target_column : str, optional
        Of tables.

    Raises
    ------
    UsageError
        If nothing of the kind exists or may be looked at, a folder holds no images, or columns or split are not to be
        had or left open.
    BrdynError
        If a table or data set cannot be read.

    Examples
    --------
    >>> from brdyn.data import find_source
    >>> source = find_source("photos")
    >>> len(source), source.name(0), source.label_names
    (8, 'cat/0.png', ['cat', 'dog'])
    """
    if target is not None:
        one_of("target", target, (MASK, DEPTH))
    asked = Asked(image_column, label_column, columns_where_there, target, target_column)
    text = str(images)
    if text == SAMPLES:
        _refuse_target(asked, text)
        _refuse_split(split, text)
        asked.refuse(repr(text))
        return SampleSource()
    path = expanded(text)
    base, at, own = text.rpartition("@")
    if at and own and not os.path.lexists(path):
        if split is not None:
            raise UsageError(f"{text!r} names a split already; drop `split`")
        text, path, split = base, expanded(base), own
    if path.is_dir():
        return _folder(path, split, asked)
    if os.path.lexists(path):
        return _file(path, split, asked)
    if _looks_like_a_path(text):
        raise UsageError(f"no images at {shown(text)!r}: no such file or folder")
    if "/" not in text:
        raise UsageError(
            f"no images at {shown(text)!r}: it is no file or folder here, and no hub data set, which are owner/name"
        )
    return hub_source(text, split or "train", asked)


def _looks_like_a_path(text: str) -> bool:
    suffix = Path(text).suffix.lower()
    return (
        text.startswith((".", "/", "~"))
        or text.endswith("/")
        or text.count("/") > 1
        or suffix in EXTENSIONS.union(parquet.ENDINGS, webdataset.ENDINGS)
        or not text
    )


def _refuse_split(split: str | None, what: str) -> None:
    if split is not None:
        raise UsageError(f"`split={split}`: {what!r} has no splits; drop it")


def _refuse_target(asked: Asked, what: str) -> None:
    """Refuse masks and depth of what holds images alone."""
    if asked.target is not None:
        raise UsageError(
            f"{what!r} holds no {asked.target} for each image; give a parquet file or hub data set with "
            f"such a column, or "
            "a folder of images and targets"
        )


def _file(path: Path, split: str | None, asked: Asked) -> ImageSource:
    """Of one file; it may be of any kind."""
    name, ending = shown(path), path.suffix.lower()
    try:
        check_regular(path)
    except OSError as error:
        raise UsageError(f"no images at {name!r}: {error.strerror or f'it is {error}'}; give {READABLE}") from error
    _refuse_split(split, name)
    if ending in parquet.ENDINGS:
        return parquet.ParquetSource(path, [""], None, asked)
    if ending in webdataset.ENDINGS:
        _refuse_target(asked, name)
        return webdataset.TarSource(path, [""], None, asked)
    if ending in OTHERS:
        raise UsageError(f"no images in {name!r}: it is {OTHERS[ending]} (brdyn reads {READABLE})")
    asked.refuse(repr(name))
    _refuse_target(asked, name)
    return FileSource(path, [""])


def _folder(root: Path, split: str | None, asked: Asked) -> ImageSource:
    """Of a folder: a data set saved to disk, or all files of one kind in it."""
    if is_saved(root):
        return saved_source(root, split, asked)
    names, unlisted, of_results = walk(root)
    kinds = {"images": EXTENSIONS, "parquet files": parquet.ENDINGS, "tar files": webdataset.ENDINGS}
    found = {
        kind: [name for name in names if os.path.splitext(name)[1].lower() in endings]
        for kind, endings in kinds.items()
    }
    if found["images"] and found["parquet files"] and not _has_images(root, found["parquet files"][0]):
        found["parquet files"] = []  # notes beside images
    there = [kind for kind in kinds if found[kind]]
    where = shown(root)
    readable = {ending for endings in kinds.values() for ending in endings}
    left_out = [name for name in of_results if os.path.splitext(name)[1].lower() in readable]
    if len(there) > 1:
        held = " and ".join(f"{len(found[kind])} {kind}" for kind in there)
        raise UsageError(f"{where!r} holds {held}, and only one kind is read at a time; give a folder or file of one")
    if not there and unlisted:
        raise UsageError(f"no images in {where!r}: {unlisted[0].name!r}: {unlisted[0].reason}")
    if not there and left_out:
        raise UsageError(
            f"no images in {where!r}: {shown(left_out[0])!r} is of a result of brdyn, as all there is; give a folder "
            "of photographs, or copy what you want to be read elsewhere"
        )
    if not there:
        raise no_such_kind(root, names, f"{', '.join(sorted(EXTENSIONS)[:6])}, …, .parquet and .tar")
    if left_out:
        tell(f"left out of {where!r}: {counted(len(left_out), 'file')} of results of brdyn, as {shown(left_out[0])!r}")
    return _all_of(there[0], root, found[there[0]], split, asked, unlisted)


def _all_of(
    kind: str, root: Path, names: list[str], split: str | None, asked: Asked, unlisted: list[Skipped]
) -> ImageSource:
    source: ImageSource
    if kind == "images":
        asked.refuse(repr(shown(root)))
        if asked.target is not None:
            return PairedSource(root, asked.target, split)
        return FileSource(root, names, split, tuple(unlisted))
    if kind == "parquet files":
        source = parquet.ParquetSource(root, names, split, asked)
    else:
        _refuse_target(asked, shown(root))
        source = webdataset.TarSource(root, names, split, asked)
    source.unlisted = tuple(unlisted)
    return source


def _has_images(root: Path, name: str) -> bool:
    """Whether a parquet file beside images holds some itself."""
    try:
        parquet.ParquetSource(root / name, [""])
    except UsageError:
        return False
    return True
