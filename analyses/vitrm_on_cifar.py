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
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from analyses.recording import RESULTS, parser, provenance
from analyses.training_runs import OutOfTime, load_split, train_or_go_on
from brdyn.classifiers.architectures import RESNETS
from brdyn.classifiers.evaluation import accuracy_and_f1, class_scores, evaluate_recursion
from brdyn.classifiers.recipe import VITRM, VITRM_NAME, ClassifierRecipe
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.training import ClassifierRun
from brdyn.errors import BrdynError
from brdyn.probes import read_classes
from brdyn.probes.features import Features
from brdyn.store import read_json, to_json, write_atomically
from brdyn.training.settings import check_same

IMAGE_SIZE = 32
LINEAR = "linear"
QUIET: dict[str, Any] = {
    "operations": 0,
    "mixup": 0.0,
    "cutmix": 0.0,
}  # a network that sees an image thirty times needs less


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


NARROW = {"width": 128, "heads": 4, "patch": 8, "dropout": 0.0}
SIZES = {
    "tiny": Size(
        networks={
            VITRM_NAME: {"width": 16, "heads": 2, "hidden": 16, "depth": 1, "patch": 8},
            "vit-small": {"width": 16, "heads": 2, "hidden": 16, "depth": 2, "patch": 8},
            "resnet18": {},
        },
        train_images=60,
        test_images=40,
        recipe=replace(VITRM, epochs=2, warmup_epochs=0, batch_size=20, **QUIET),
    ),
    "cpu": Size(
        networks={
            VITRM_NAME: {**NARROW, "depth": 2, "hidden": 192},
            "vit-small": {**NARROW, "depth": 8, "hidden": 256},
        },
        train_images=5000,
        test_images=None,
        recipe=replace(
            VITRM, epochs=40, warmup_epochs=2, lr=1e-3, ema=0.99, precision="bfloat16",
            validate_every=156, **QUIET
        ),
    ),
    "gpu": Size(
        networks={VITRM_NAME: {"dropout": 0.1}, "vit-small": {"dropout": 0.1}, "resnet18": {}},
        train_images=None,
        test_images=None,
        recipe=replace(VITRM, epochs=50, warmup_epochs=5, precision="bfloat16"),
        float16=True,
    ),
    "published": Size(
        networks={VITRM_NAME: {"dropout": 0.1}},
        train_images=None,
        test_images=None,
        recipe=replace(VITRM, precision="bfloat16", checkpoint_every=1500),
        float16=True,
    ),
}  # fmt: skip


class Study:
    """Images, and the networks trained on them."""

    def __init__(self, choice: argparse.Namespace) -> None:
        self.choice, self.size = choice, SIZES[choice.size]
        self.folder: Path = choice.out / choice.size
        self.device = torch.device(choice.device)
        self.until = time.monotonic() + 60 * choice.minutes
        counts = self.size.train_images, self.size.test_images
        self.train, self.test = load_split(choice.train, choice.test, IMAGE_SIZE, counts)
        changes = {name: getattr(choice, name) for name in ("epochs", "lr", "batch_size", "compile")}
        self.recipe = replace(
            self.size.recipe, **{name: value for name, value in changes.items() if value is not None}
        )
        self.folder.mkdir(parents=True, exist_ok=True)

    def run_of(self, name: str) -> ClassifierRun:
        """How a network is trained here."""
        recipe = self.recipe if name == VITRM_NAME else replace(self.recipe, ema=0.0)
        return ClassifierRun(
            network=name, recipe=recipe, image_size=IMAGE_SIZE, built=dict(self.size.networks[name])
        )

    def record(self, name: str) -> str:
        """Train and evaluate one network; a word on it."""
        run, place, path = self.run_of(name), self.folder / "runs" / name, self.folder / f"{name}.json"
        before = read_json(path, "a record", ("digest", "options")) if path.is_file() else None
        if before is not None and not place.exists():  # its weights stayed where it was trained
            check_same(before["options"], run.options(self.train, self.test), path)
            return "already recorded"
        small = self.size.float16 and name not in RESNETS  # which a narrow range of numbers would harm
        content = train_or_go_on(
            run, place, self.train, self.test, until=self.until, device=self.device, float16=small
        )
        classifier = Classifier.from_pretrained(place)
        if before is not None and before["digest"] == classifier.digest:
            return "already recorded"
        classifier.network.to(self.device)
        evaluation: dict[str, Any] = {}
        if name == VITRM_NAME:
            recursion = evaluate_recursion(classifier, self.test)
            as_trained = recursion.steps.iloc[0]  # T = 1
            evaluation |= {key: float(as_trained[key]) for key in ("accuracy", "low", "high", "macro_f1")}
            evaluation["recursion"] = recursion.to_dict()
        else:
            evaluation |= accuracy_and_f1(class_scores(classifier, self.test).argmax(1), self.test.labels)
        evaluation["provenance"] = provenance("vitrm_on_cifar", self.choice.device)
        origin = {**content["provenance"], "command": evaluation["provenance"]["command"]}
        self.write(
            name, {**content, "provenance": origin, "digest": classifier.digest, "evaluation": evaluation}
        )
        history = content["history"]
        return (
            f"{evaluation['accuracy']:.2%} of {len(self.test)} test images; {content['parameters'] / 1e6:.2f} M "
            f"parameters, {content['options']['recipe']['epochs']:g} epochs in {history['seconds']:.0f} s "
            f"({history['images_per_second']:.0f} images/s)"
        )

    def record_linear(self) -> str:
        """Multinomial logistic regression on pixels: four fifths of the images fit it, the rest choose its penalty."""
        path = self.folder / f"{LINEAR}.json"
        data = {"data": self.train.identity(), "test": self.test.identity()}
        if path.is_file():
            before = read_json(path, "a linear classifier", ("options",))
            check_same(before["options"], data, path)
            return "already recorded"
        train, test = (
            Features(images.pixels.flatten(1).float() / 255, images.labels)
            for images in (self.train, self.test)
        )
        reading = read_classes(train, test, seeds=1, device=self.device)
        right = float(reading.hits["linear"].float().mean())
        origin = provenance("vitrm_on_cifar", self.choice.device)
        self.write(
            LINEAR,
            {"accuracy": right, "penalty": reading.penalties[0], "options": data, "provenance": origin},
        )
        return f"{right:.2%}"

    def write(self, name: str, content: dict[str, Any]) -> None:
        """One result file."""
        write_atomically(self.folder / f"{name}.json", to_json({**content, "size": asdict(self.size)}))


def main() -> None:
    """Train what is not trained yet, and record it."""
    options = parser(__doc__)
    options.add_argument("--train", required=True, help="labelled images to train on")
    options.add_argument("--test", required=True, help="labelled images to test on")
    options.add_argument("--size", choices=sorted(SIZES), default="cpu")
    options.add_argument("--only", help="one network, or `linear`")
    options.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop at a checkpoint after so long"
    )
    options.add_argument("--epochs", type=float, help="instead of the size's")
    options.add_argument("--lr", type=float, help="instead of the size's")
    options.add_argument("--batch-size", type=int, help="instead of the size's")
    options.add_argument("--compile", action="store_true", default=None, help="compile the networks")
    options.set_defaults(out=RESULTS / "vitrm")
    choice = options.parse_args()
    try:
        study = Study(choice)
        names = (*study.size.networks, LINEAR)
        if choice.only and choice.only not in names:
            options.error(f"--only {choice.only} is not one of {', '.join(names)}")
        for name in names:
            if choice.only in (None, name):
                print(
                    f"{name}: {study.record_linear() if name == LINEAR else study.record(name)}", flush=True
                )
    except OutOfTime as over:
        print(f"{over}; run it again to go on")
    except BrdynError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
