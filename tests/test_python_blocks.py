"""Python of the pages and of the README: it parses, and every name in it is one that there is. Nothing is run."""

import ast
import builtins
import importlib
import inspect
import re
import symtable
import textwrap

import pytest

from tests.cli.commands import ROOT

BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
PAGES = [page for page in sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")]) if BLOCK.search(page.read_text())]
SAID = {"brdyn", "model", "images", "phases"}  # what pages have from before: an import, and what is measured on what


def statements(text):
    """Those of all blocks of a page, in order."""
    for block in BLOCK.finditer(text):
        yield from ast.parse(textwrap.dedent(block[2])).body


def tables(table):
    yield table
    for child in table.get_children():
        yield from tables(child)


def names(statement):
    """Global names that a statement defines, and those that it reads and does not define."""
    top = symtable.symtable(ast.unparse(statement), "page", "exec")
    defined = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    read = {
        one.get_name()
        for table in tables(top)
        for one in table.get_symbols()
        if one.is_referenced() and (table is top or one.is_global())
    }
    return defined, read - defined


def unknown(text):
    """Names that no statement before defines, and what is imported from, or asked of, brdyn that is not there."""
    known = SAID | set(dir(builtins))
    there = {"brdyn": importlib.import_module("brdyn")}
    for statement in statements(text):
        taken = dict(imported(statement))
        yield from (name for name, value in taken.items() if value is None)
        there |= taken
        defined, read = names(statement)
        yield from read - known
        known |= defined
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and found(node, there) is None:
                yield ast.unparse(node)
            if isinstance(node, ast.Call):
                yield from strange(node, there)


def imported(statement):
    """What a statement takes from brdyn, by name; None where it is not there."""
    if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == "brdyn":
        module = importlib.import_module(statement.module)
        for one in statement.names:
            yield one.asname or one.name, getattr(module, one.name, None)


def found(node, there):
    """What an expression of names and dots is, where it begins at what brdyn gives; True of any other."""
    if isinstance(node, ast.Name):
        return there.get(node.id, True)
    if not isinstance(node, ast.Attribute):
        return True
    owner = found(node.value, there)
    return owner if owner is True or owner is None else getattr(owner, node.attr, None)


def strange(call, there):
    """Arguments by a name that what is called, of brdyn, does not have."""
    called = found(call.func, there)
    if called is True or called is None:
        return
    takes = inspect.signature(called).parameters.values()
    if not any(one.kind is one.VAR_KEYWORD for one in takes):
        known = {one.name for one in takes}
        yield from (f"{ast.unparse(call.func)}({one.arg}=)" for one in call.keywords if one.arg not in {*known, None})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_a_page_has_no_name_that_there_is_not(page):
    assert list(unknown(page.read_text())) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("layers = contiguous((7, 10), model.depth)", ["contiguous"]),
        ("print(found)\nfound = 1", ["found"]),
        ("from brdyn.phases import contiguous", ["contiguous"]),
        ("brdyn.phases.contiguous()", ["brdyn.phases.contiguous"]),
        ("brdyn.segment(model, nothing=1)", ["brdyn.segment(nothing=)"]),
        ("def twice(one):\n    return one + other", ["other"]),
        ("layers = [layer for layer in range(3)]\nwith open('f') as file:\n    print(file, layers)", []),
    ],
)
def test_what_there_is_not_is_found(code, said):
    assert list(unknown(f"Text.\n\n```python\n{code}\n```\n")) == said


def test_blocks_of_a_page_go_on_from_each_other():
    first, second = "```python\nlayers = 3\n```\n", "- a list:\n\n  ```python\n  print(layers)\n  ```\n"
    assert list(unknown(f"{first}\n{second}")) == []
    assert list(unknown(f"{second}\n{first}")) == ["layers"]


def test_what_is_no_python_is_found():
    with pytest.raises(SyntaxError):
        list(unknown("```python\nlayers = \n```\n"))
