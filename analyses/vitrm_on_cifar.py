"""ViTRM trained from scratch, a ViT and a ResNet beside it by the same recipe, and a linear classifier on pixels.

Every run goes on from its last checkpoint when the script is run again with the same options, so that a long training
fits in as many pieces as it takes. Sizes: `gpu` is the published networks at full size for a twentieth of ViTRM's
published epochs, `published` ViTRM alone for all of them, `cpu` small ones on few images (half an hour on two cores),
`tiny` a dry run. What a size changes of the recipe is written into every result.

    python -m analyses.vitrm_on_cifar --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.vitrm_on_cifar --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from analyses.recording import RESULTS, Choice
from analyses.study import run_study, sizes_of, study_parser
from analyses.training_runs import IMAGE_SIZE, TrainedNetworks
from brdyn.classifiers import Classifier, ClassifierRun, class_scores
from brdyn.classifiers.architectures import RESNETS
from brdyn.classifiers.evaluation import accuracy_and_f1, evaluate_recursion
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.probes import Features, read_classes

LINEAR = "linear"
SIZES = sizes_of("vitrm_on_cifar")


class CifarStudy(TrainedNetworks[str]):
    """Networks beside ViTRM; only ViTRM ends with the average of its weights."""

    asked_as, weights_as = "options", "digest"

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice, choice.size, SIZES[choice.size])
        self.recipe = replace(self.size.recipe, epochs=choice.epochs or self.size.recipe.epochs)

    @classmethod
    def planned(cls, size: str) -> list[str]:
        return [*SIZES[size].networks, LINEAR]

    def run_of(self, cell: str) -> ClassifierRun:
        recipe = self.recipe if cell == VITRM_NAME else replace(self.recipe, ema=0.0)
        built = dict(self.size.networks[cell])
        return ClassifierRun(network=cell, recipe=recipe, image_size=IMAGE_SIZE, built=built)

    def asked(self, cell: str) -> Mapping[str, Any]:
        if cell == LINEAR:
            return {"data": self.train.identity(), "test": self.test.identity()}
        return super().asked(cell)

    def head(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"options": asked, "size": {**vars(self.size), "recipe": asdict(self.size.recipe)}}

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if cell == LINEAR:
            return self.linear()
        # A ResNet would be harmed by a narrow range of numbers.
        content = self.trained(cell, float16=self.size.float16 and cell not in RESNETS)
        classifier = Classifier.from_pretrained(self.place(cell))
        classifier.network.to(self.device)
        evaluation: dict[str, Any] = {}
        if cell == VITRM_NAME:
            recursion = evaluate_recursion(classifier, self.test)
            as_trained = recursion.steps.iloc[0]  # T = 1
            evaluation |= {key: float(as_trained[key]) for key in ("accuracy", "low", "high", "macro_f1")}
            evaluation["recursion"] = recursion.to_dict()
        else:
            evaluation |= accuracy_and_f1(class_scores(classifier, self.test).argmax(1), self.test.labels)
        evaluation["provenance"] = self.provenance()
        origin = {**content["provenance"], "command": evaluation["provenance"]["command"]}
        return {**content, "provenance": origin, "digest": classifier.digest, "evaluation": evaluation}

    def linear(self) -> dict[str, Any]:
        """Multinomial logistic regression on pixels: four fifths of the images fit it, the rest choose its penalty."""
        train, test = (
            Features(images.pixels.flatten(1).float() / 255, images.labels) for images in (self.train, self.test)
        )
        reading = read_classes(train, test, seeds=1, device=self.device)
        return {"accuracy": float(reading.hits["linear"].float().mean()), "penalty": reading.penalties[0]}


OPTIONS = study_parser(__doc__, RESULTS / "vitrm", sizes=SIZES)
OPTIONS.add_argument("--epochs", type=float, help="instead of the size's")
STUDY = CifarStudy
main = run_study(STUDY, OPTIONS, __name__)
