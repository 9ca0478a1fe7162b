"""What the guide says that commands print and cost is what was recorded."""

import json
import re

from analyses import examples
from analyses.recording import RESULTS
from analyses.render import outdated

GUIDE = "**Example.** Before.\n\n<!-- recorded: perturb/cifar_vit12, 3 lines -->\nold\n<!-- end -->\n\nAfter.\n"


def test_pages_say_what_was_recorded():
    """If not: python -m analyses.examples."""
    assert outdated(examples.pages()) == {}
    assert {path.name for path in examples.pages()} >= {
        "phases.md",
        "dynamics.md",
        "perturbation.md",
        "raptor.md",
    }


def test_ranks_are_asked_for_as_in_what_is_told_of_them():
    """All but which images and where to."""
    run = json.loads((RESULTS / "ranks" / "cifar_vit12" / "raptor_rank.json").read_text())["provenance"]["command"]
    (shown,) = re.findall(r"^\$ (brdyn raptor-rank .*)$", (examples.GUIDE / "raptor.md").read_text(), re.MULTILINE)
    asked, said = (re.sub(r" --(images|out|workers) \S+| --overwrite", "", command) for command in (run, shown))
    assert said == asked


def test_a_place_is_filled_again_and_the_rest_left_alone(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(GUIDE)
    (tmp_path / "other.md").write_text("no place\n")
    monkeypatch.setattr(examples, "GUIDE", tmp_path)
    (written,) = examples.pages().values()
    before, shown, after = re.split(r"```console\n|```\n", written)
    assert before.startswith("**Example.** Before.\n\n<!-- recorded: perturb/cifar_vit12, 3 lines -->\n")
    assert after.endswith("<!-- end -->\n\nAfter.\n")
    run = json.loads((RESULTS / "perturb" / "cifar_vit12" / "perturb.json").read_text())["provenance"]
    assert f"256 images of 32 × 32 pixels: {round(run['seconds'])} seconds on x86_64 CPU" in after
    command, *lines = shown.splitlines()
    assert command == "$ brdyn perturb --model cifar_vit12 --images data/cifar10/test.parquet -n 256 --null 5"
    assert (len(lines), lines[-1]) == (4, "…")
    assert "old" not in written
