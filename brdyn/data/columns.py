"""Which column of a table holds the images, and which the labels: one rule for parquet, data sets and tar files.

Images: the column asked for. Else, among the columns declared as images (those of encoded bytes, where none is), and
never one that is named for a mask, depth, embedding, segmentation, annotation, label or target: `image`, or else
`img`, or else the only one of another usual name, or else the only one. Two that are as good are refused, with both
names.

Labels: the column asked for. Else, among the columns declared as classes, the first usual name, or else the only one;
or else the first column of a usual name that can hold labels. See :mod:`brdyn.data.labels` for what a label is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from brdyn.data.files import shown
from brdyn.data.labels import MOST_CLASSES, Labels
from brdyn.errors import UsageError
from brdyn.words import shortened

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls")
FIRST_IMAGE_COLUMNS = ("image", "img")
IMAGE_COLUMNS = ("images", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixel_values")
NO_PICTURES = ("mask", "depth", "embed", "segment", "annot", "label", "target")
TARGET_COLUMNS = {
    "mask": (
        "mask", "masks", "annotation", "annotations", "segmentation", "segmentation_mask", "semantic_segmentation",
        "label_mask", "label", "labels",
    ),
    "depth": ("depth", "depth_map", "depths", "depth_image"),
}  # fmt: skip
NUMBERS, FRACTIONS, BOOLEANS, TEXTS, NOTHING, OTHERS = (
    "numbers",
    "fractions",
    "booleans",
    "texts",
    "nothing",
    "others",
)


@dataclass(frozen=True)
class Asked:
    """Columns that were asked for.

    Attributes
    ----------
    image, label : str or None
    where_there : bool
        A set that lacks such a column goes by the rule instead of being refused.
    target : {"mask", "depth"} or None
        What is to be read beside each image.
    target_column : str or None
    """

    image: str | None = None
    label: str | None = None
    where_there: bool = False
    target: str | None = None
    target_column: str | None = None

    def refuse(self, what: str) -> None:
        """Refuse columns asked for of a set that has none."""
        named = self.image or self.label or self.target_column
        if named is not None and not self.where_there:
            raise UsageError(
                f"there is no column {named!r}: {what} has no columns; drop `image_column`, `label_column` "
                f"and `target_column`"
            )


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name, type : str
    holds : str
        What labels could be made of.
    pictures : bool
        Whether its cells are encoded images.
    declared : {"Image", "ClassLabel", ""}
    classes : tuple of str or None
        That it was declared with.
    """

    name: str
    type: str
    holds: str
    pictures: bool
    declared: str = ""
    classes: tuple[str, ...] | None = None


def arrow_column(name: str, kind: Any, feature: Any = None) -> Column:
    """A column of an Arrow schema, with what data-set metadata says of it (a mapping, if it is well formed)."""
    import pyarrow.types as types

    said = feature if isinstance(feature, dict) else {}
    names = said.get("names")
    named = isinstance(names, list) and bool(names) and all(isinstance(one, str) for one in names)
    declared = said.get("_type") if said.get("_type") in ("Image", "ClassLabel") else ""
    if types.is_struct(kind):
        inner = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
    else:
        inner = kind
    pictures = inner is not None and any(
        test(inner) for test in (types.is_binary, types.is_large_binary, types.is_binary_view)
    )
    plain = kind.value_type if types.is_dictionary(kind) else kind
    tests: tuple[tuple[str, tuple[Callable[[Any], bool], ...]], ...] = (
        (NUMBERS, (types.is_integer,)),
        (FRACTIONS, (types.is_floating,)),
        (BOOLEANS, (types.is_boolean,)),
        (TEXTS, (types.is_string, types.is_large_string, types.is_string_view)),
        (NOTHING, (types.is_null,)),
    )
    holds = next((what for what, kinds in tests if any(test(plain) for test in kinds)), OTHERS)
    return Column(
        name,
        shortened(shown(str(kind)), 60),
        holds,
        pictures,
        declared or "",
        tuple(names or ()) if named else None,
    )


def said_of_itself(schema: Any) -> dict[str, str]:
    """The metadata of an Arrow schema, as text."""
    found = {}
    for name, value in (schema.metadata or {}).items():
        with suppress(UnicodeDecodeError):
            found[name.decode()] = value.decode()
    return found


def choose_image(columns: Sequence[Column], asked: Asked, where: str) -> Column:
    """The column of images.

    Raises
    ------
    UsageError
        If the one asked for is not there or holds none, if there is none, or if several are as good.
    """
    wanted = _asked_for(columns, asked.image, asked.where_there, where)
    if wanted is not None:
        if not wanted.pictures:
            raise UsageError(
                f"column {wanted.name!r} of {where} holds {wanted.type}, and not encoded images; choose another "
                "`image_column`"
            )
        return wanted
    pictures = [column for column in columns if column.pictures]
    fitting = [column for column in pictures if not any(word in column.name.lower() for word in NO_PICTURES)]
    fitting = [column for column in fitting if column.declared == "Image"] or fitting
    by_name = {column.name.lower(): column for column in reversed(fitting)}
    for name in FIRST_IMAGE_COLUMNS:
        if name in by_name:
            return by_name[name]
    usual = [by_name[name] for name in IMAGE_COLUMNS if name in by_name]
    for some in (usual, fitting):
        if len(some) == 1:
            return some[0]
    if pictures:
        these = fitting or pictures
        why = "may hold the images" if fitting else "hold images, but by their names not those that are meant"
        raise UsageError(f"columns {_listed(these)} of {where} {why}; choose one by `image_column`")
    raise UsageError(f"{where} has no column of encoded images among {_listed(columns)}")


def choose_label(columns: Sequence[Column], asked: Asked, where: str) -> tuple[Column | None, str]:
    """The column of labels, or none and why.

    Raises
    ------
    UsageError
        If the one asked for is not there, or cannot hold labels.
    """
    wanted = _asked_for(columns, asked.label, asked.where_there, where)
    if wanted is not None:
        if wanted.holds == OTHERS:
            raise UsageError(f"{_unfit(wanted)} in {where}; choose another `label_column`")
        return wanted, ""
    usual = [column for name in LABEL_COLUMNS for column in columns if column.name.lower() == name]
    declared = [column for column in columns if column.declared == "ClassLabel" and column.holds != OTHERS]
    fitting = [column for column in usual if column.holds != OTHERS]
    for column in fitting:
        if column in declared or not declared:
            return column, ""
    if len(declared) == 1:
        return declared[0], ""
    if declared:
        return None, f"columns {_listed(declared)} of {where} may hold them; choose one by `label_column`"
    if usual:
        return None, f"{_unfit(usual[0])} in {where}"
    return None, f"{where} has no label column among {_listed(columns)}"


def choose_target(columns: Sequence[Column], asked: Asked, where: str) -> Column | None:
    """The column of masks or maps of depth, where those are to be read.

    Raises
    ------
    UsageError
        If there is none, or the one asked for holds no pictures.
    """
    if asked.target is None:
        return None
    wanted = _asked_for(columns, asked.target_column, asked.where_there, where)
    if wanted is not None:
        if not wanted.pictures:
            raise UsageError(
                f"column {wanted.name!r} of {where} holds {wanted.type}, and not encoded pictures; choose another "
                "`target_column`"
            )
        return wanted
    pictures = {column.name.lower(): column for column in columns if column.pictures}
    for name in TARGET_COLUMNS[asked.target]:
        if name in pictures:
            return pictures[name]
    raise UsageError(
        f"{where} has no column of a {asked.target} for each image among {_listed(columns)}; choose one by "
        f"`target_column`"
    )


def _asked_for(columns: Sequence[Column], name: str | None, where_there: bool, where: str) -> Column | None:
    found = next((column for column in columns if column.name == name), None)
    if name is not None and found is None and not where_there:
        raise UsageError(f"{where} has no column {name!r}; it has {_listed(columns)}")
    return found


def _unfit(column: Column) -> str:
    return f"column {column.name!r} holds {column.type}, and not one class an image"


def _listed(columns: Sequence[Column]) -> str:
    names = [shown(column.name) for column in columns]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "none"


def make_labels(column: Column, chunks: Callable[[], Iterable[Any]]) -> tuple[Labels | None, str]:
    """The classes of a column, or why it has none.

    Parameters
    ----------
    column : Column
    chunks : callable
        Its Arrow arrays, gone through where that decides.
    """
    if column.classes is not None:
        twice = [name for name, count in Counter(column.classes).items() if count > 1]
        if twice:
            return None, f"column {column.name!r} is declared with the class {twice[0]!r} twice"
        return Labels.named(column.classes), ""
    if column.holds == BOOLEANS:
        return Labels.named(("False", "True")), ""
    if column.holds == TEXTS:
        return _names(column, chunks())
    highest, broken = _numbers(chunks())
    if broken is not None:
        return None, f"column {column.name!r} holds fractions, such as {broken:g}, and not classes"
    return Labels(highest=highest), ""


def _names(column: Column, chunks: Iterable[Any]) -> tuple[Labels | None, str]:
    import pyarrow.compute as pc

    distinct: set[str] = set()
    for chunk in chunks:
        distinct.update(text for text in pc.unique(chunk).to_pylist() if text and text.strip())
        if len(distinct) > MOST_CLASSES:
            return None, f"column {column.name!r} holds more than a million different texts, and not classes"
    return Labels.named(sorted(distinct)), ""


def _numbers(chunks: Iterable[Any]) -> tuple[int | None, float | None]:
    """The largest that can be a class, and the first finite value that is not whole."""
    import numpy as np

    highest = -1
    for chunk in chunks:
        values = np.asarray(chunk.drop_null().to_numpy(zero_copy_only=False))
        if values.dtype.kind == "f":  # whole numbers stay what they are: float64 cannot hold all of them
            values = values[np.isfinite(values)]
            broken = values[values % 1 != 0]
            if len(broken):
                return None, float(broken[0])
        classes = values[values < MOST_CLASSES]
        highest = max(highest, int(classes.max()) if len(classes) else -1)
    return (None if highest < 0 else highest), None
