"""ViTRM trained from scratch, a ViT and a ResNet beside it by the same recipe, and a linear classifier on pixels.

Every run goes on from its last checkpoint when the script is run again with the same options, so that a long training
fits in as many pieces as it takes. Sizes: `gpu` is the published networks at full size for a twentieth of ViTRM's
published epochs, `published` ViTRM alone for all of them, `cpu` small ones on few images (half an hour on two cores),
`tiny` a dry run. What a size changes of the recipe is written into every result.

    python -m analyses.vitrm_on_cifar --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.vitrm_on_cifar --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from analyses.recording import RESULTS
from analyses.study import Study, command, named, sizes_of, study_parser
from analyses.training_runs import load_split, train_or_go_on
from brdyn.classification.evaluation import accuracy_and_f1, class_scores
from brdyn.classification.recipe import VITRM_NAME, ClassifierRecipe
from brdyn.classification.run import ClassifierRun
from brdyn.classification.saved import Classifier, is_classifier, read_config
from brdyn.classification.sizes import RESNETS
from brdyn.probes import read_classes
from brdyn.probes.features import Features
from brdyn.results import read_json
from brdyn.training.settings import check_same
from brdyn.vitrm.evaluation import evaluate_recursion

IMAGE_SIZE = 32
LINEAR = "linear"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is.

    Attributes
    ----------
    networks : mapping of str to mapping
        What each is built with beside its published sizes.
    train_images, test_images : int or None
        None for all.
    recipe : ClassifierRecipe
        Of all networks; only ViTRM ends with the average of its weights.
    float16 : bool
        Keep trained transformers at half the size, and evaluate them so.
    """

    networks: Mapping[str, Mapping[str, Any]]
    train_images: int | None
    test_images: int | None
    recipe: ClassifierRecipe = field(default_factory=ClassifierRecipe)
    float16: bool = False


SIZES = sizes_of("vitrm_on_cifar", Size)


class CifarStudy(Study[str]):
    """Images, and the networks trained on them."""

    module = "vitrm_on_cifar"

    def __init__(self, choice: argparse.Namespace) -> None:
        super().__init__(choice)
        self.size = SIZES[choice.size]
        self.folder = choice.out / choice.size
        self.names = named(choice.only, (*self.size.networks, LINEAR), "--only")
        counts = self.size.train_images, self.size.test_images
        self.train, self.test = load_split(choice.train, choice.test, IMAGE_SIZE, counts)
        changes = {name: getattr(choice, name) for name in ("epochs", "lr", "batch_size", "compile")}
        self.recipe = replace(
            self.size.recipe, **{name: value for name, value in changes.items() if value is not None}
        )

    def cells(self) -> Iterator[str]:
        return iter(self.names)

    def name(self, cell: str) -> str:
        return cell

    def run_of(self, name: str) -> ClassifierRun:
        """How a network is trained here."""
        recipe = self.recipe if name == VITRM_NAME else replace(self.recipe, ema=0.0)
        return ClassifierRun(
            network=name, recipe=recipe, image_size=IMAGE_SIZE, built=dict(self.size.networks[name])
        )

    def asked(self, cell: str) -> dict[str, Any]:
        if cell == LINEAR:
            return {"data": self.train.identity(), "test": self.test.identity()}
        return self.run_of(cell).options(self.train, self.test)

    def known(self, cell: str, asked: Mapping[str, Any]) -> bool:
        """Whether it is recorded; its weights may have stayed where it was trained.

        Raises
        ------
        UsageError
            If it is recorded with other options.
        """
        path, place = self.path(cell), self.folder / "runs" / cell
        if not path.is_file():
            return False
        before = read_json(path, "a record", ("options",))
        if "failed" in before:
            return False
        check_same(before["options"], asked, path)
        return not is_classifier(place) or read_config(place)["digest"] == before["digest"]

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Train and evaluate it."""
        return self.linear(asked) if cell == LINEAR else self.network(cell)

    def network(self, name: str) -> dict[str, Any]:
        """Train one network, or go on, and evaluate it."""
        small = self.size.float16 and name not in RESNETS  # which a narrow range of numbers would harm
        place = self.folder / "runs" / name
        content = train_or_go_on(
            self.run_of(name),
            place,
            self.train,
            self.test,
            until=self.until,
            device=self.device,
            float16=small,
        )
        classifier = Classifier.from_pretrained(place)
        classifier.network.to(self.device)
        evaluation: dict[str, Any] = {}
        if name == VITRM_NAME:
            recursion = evaluate_recursion(classifier, self.test)
            as_trained = recursion.steps.iloc[0]  # T = 1
            evaluation |= {key: float(as_trained[key]) for key in ("accuracy", "low", "high", "macro_f1")}
            evaluation["recursion"] = recursion.to_dict()
        else:
            evaluation |= accuracy_and_f1(class_scores(classifier, self.test).argmax(1), self.test.labels)
        evaluation["provenance"] = self.provenance()
        origin = {**content["provenance"], "command": evaluation["provenance"]["command"]}
        return {**content, "provenance": origin, "digest": classifier.digest, "evaluation": evaluation}

    def linear(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Multinomial logistic regression on pixels: four fifths of the images fit it, the rest choose its penalty."""
        train, test = (
            Features(images.pixels.flatten(1).float() / 255, images.labels)
            for images in (self.train, self.test)
        )
        reading = read_classes(train, test, seeds=1, device=self.device)
        right = float(reading.hits["linear"].float().mean())
        return {"accuracy": right, "penalty": reading.penalties[0]}

    def head(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"options": asked, "size": asdict(self.size)}

    def said(self, content: Mapping[str, Any]) -> str:
        if "evaluation" not in content:
            return f"{content['accuracy']:.2%}"
        history = content["history"]
        return (
            f"{content['evaluation']['accuracy']:.2%} of {len(self.test)} test images; "
            f"{content['parameters'] / 1e6:.2f} M parameters, {content['options']['recipe']['epochs']:g} epochs in "
            f"{history['seconds']:.0f} s ({history['images_per_second']:.0f} images/s)"
        )


def main() -> None:
    """Train what is not trained yet, and record it."""
    options = study_parser(__doc__, RESULTS / "vitrm")
    options.add_argument("--size", choices=sorted(SIZES), default="cpu")
    options.add_argument("--only", help="some networks alone, or `linear`: vitrm,vit-small")
    options.add_argument("--epochs", type=float, help="instead of the size's")
    options.add_argument("--lr", type=float, help="instead of the size's")
    options.add_argument("--batch-size", type=int, help="instead of the size's")
    options.add_argument("--compile", action="store_true", default=None, help="compile the networks")
    command(CifarStudy, options)


if __name__ == "__main__":
    main()
