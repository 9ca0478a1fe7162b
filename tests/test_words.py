"""Messages of other libraries on one line, names that cannot be printed, and the JSON that holds them."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import brdyn
from brdyn.cli.commands import command_line
from brdyn.store import to_json
from brdyn.words import as_typed, counted, first_line, printable, shortened


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


OF_THE_LIBRARY = (  # which no command takes or passes on
    "--apart", "--folder", "--help", "--layer-options", "--leave-out", "--published", "--temperature", "--train",
)  # fmt: skip


def messages(path):
    """The texts in a file, docstrings left out; of one with values in it, what is around them."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_the_library_speaks_of_parameters_and_the_command_line_of_options():
    """A message raised outside the command line serves both: it names `image_size`, which is shown as --image-size."""
    home = Path(brdyn.__file__).parent
    found = [
        f"{path.relative_to(home)}:{line}: {text}"
        for path in home.rglob("*.py")
        if home / "cli" not in path.parents and path.name != "result_files.py"  # which names commands
        for line, text in messages(path)
        if re.search(r"--[a-z]", re.sub("`brdyn [^`]*`", "", text))
    ]
    assert found == []
    assert as_typed("drop `image_size`") == "drop --image-size"
    assert as_typed("use `init=random` or `weights_key='a b'`") == "use --init random or --weights-key 'a b'"
    assert as_typed("pass `allow_pickle=True`; `brdyn models` and `ulimit -n` stay") == (
        "pass --allow-pickle; `brdyn models` and `ulimit -n` stay"
    )


def test_every_option_that_a_message_names_is_one():
    """Of a command: those of the library as they are shown, those of the command line as they stand."""
    of_commands = [one for command in command_line.commands.values() for one in command.params]
    options = {name for one in (*command_line.params, *of_commands) for name in (*one.opts, *one.secondary_opts)}
    home = Path(brdyn.__file__).parent
    found = [
        f"{path.relative_to(home)}:{line}: {option}"
        for path in home.rglob("*.py")
        for line, text in messages(path)
        for option in (
            re.findall("--[a-z][a-z0-9-]*[a-z0-9](?=[^a-z0-9-])", text)
            if home / "cli" in path.parents
            else [f"--{name.replace('_', '-')}" for name in re.findall("(?<!`)`([a-z][a-z0-9_]*)[`=]", text)]
        )
        if option not in options and option not in OF_THE_LIBRARY
    ]
    assert found == []
