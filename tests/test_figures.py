"""Every notebook runs from its first cell to its last, in a fresh process and in its folder."""

import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.text import Text
from traitlets.config import Config

from brdyn.data import samples
from tests.cli.commands import ROOT
from tests.forked import process

SECONDS = 600
MODELS = "imgfocus_vits14|cifar_vit12|vitrm|vit-small|vit-tiny12|simulated networks"
IMAGES = r"[\d,]+ images of \d+ × \d+ pixels|drawn without images"


class Nameless(Exception):
    """A picture that does not say what it is of."""


def check_named(figure):
    """A picture says of which model it is, and on how many images of which size it was measured."""
    said = [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]
    if not any(re.search(f"({MODELS}).*({IMAGES})", text, re.IGNORECASE) for text in said):
        raise Nameless(said)


class Shell(InteractiveShell):
    def enable_gui(self, gui=None):
        """There are no windows."""


def execute(notebook, said):
    """Run the code cells as a kernel does, which makes every form of what they show, its picture too; on crops of two
    of the packaged photographs where a cell looks at all of them."""
    samples.SKIMAGE, samples.SKLEARN = samples.SKIMAGE[:1], samples.SKLEARN[:1]
    drawing, nameless = FigureCanvasBase.print_figure, []

    def drawn(canvas, *args, **options):
        try:
            check_named(canvas.figure)
        except Nameless as error:  # which a notebook would show in the place of the picture
            nameless.append(str(error))
        return drawing(canvas, *args, **options)

    FigureCanvasBase.print_figure = drawn
    os.chdir(notebook.parent)
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != str(ROOT)]
    with open(said, "w") as file, redirect_stdout(file), redirect_stderr(file):
        shell = Shell.instance(config=Config(HistoryManager={"enabled": False}), colors="nocolor")
        for cell in nbformat.read(notebook, as_version=4).cells:
            if cell.cell_type == "code" and not shell.run_cell(cell.source).success:
                raise SystemExit(1)
        if nameless:
            print("pictures without model, number of images or their size:", *nameless, sep="\n")
            raise SystemExit(1)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "figures").glob("*.ipynb")))
def test_a_notebook_runs(name, tmp_path):
    running = process(execute, ROOT / "figures" / name, tmp_path / "said")
    running.start()
    running.join(SECONDS)
    running.kill()
    running.join()
    assert running.exitcode == 0, (tmp_path / "said").read_text()
