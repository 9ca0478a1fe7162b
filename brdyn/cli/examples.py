"""Examples that each command shows at the end of its help."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "models": (
        "brdyn models vit_tiny",
        "brdyn models dinov2_vitb14_reg",
    ),
    "report": (
        "brdyn report --model imgfocus_vits14 --images samples --fast --out runs/report",
        "brdyn report --model dinov2_vitb14 --model dinov2_vits14 --images photos --null 2 --out runs/report",
    ),
    "phases": (
        "brdyn phases --model imgfocus_vits14 --images samples --out runs/phases",
        "brdyn phases --model dinov2_vitb14 --images photos -n 500 --similarity cka --k test",
    ),
    "dynamics": (
        "brdyn dynamics --model imgfocus_vits14 --images samples --phases runs/phases/phases.json",
        "brdyn dynamics --model cifar_vit12 --images cifar10@test -n 200 --measures speed,basins --null 5",
    ),
    "perturb": (
        "brdyn perturb --model imgfocus_vits14 --images samples -n 16 --eps 0.2 --layers 0,4,8",
        "brdyn perturb --model dinov2_vits14 --images photos -n 64 --tokens cls,patches",
    ),
    "interventions": (
        "brdyn interventions --model imgfocus_vits14 --images samples -n 8 --kinds delete",
        "brdyn interventions --model cifar_vit12 --images cifar10@test -n 200 --kinds swap,shuffle",
    ),
    "splice": (
        "brdyn splice --model imgfocus_vits14 --images samples -n 20 --image-size 112",
        "brdyn splice --model cifar_vit12 --images cifar10@test -n 200 --surrogates exchange,affine --null 5",
    ),
    "raptor-fit": (
        "brdyn raptor-fit --model imgfocus_vits14 --images photos --k 2 --steps 2000 --out runs/raptor",
        "brdyn raptor-fit --model dinov2_vitb14 --images photos --phases runs/phases/phases.json --resume",
    ),
    "raptor-eval": (
        "brdyn raptor-eval runs/raptor --images photos -n 500 --out runs/eval",
        "brdyn raptor-eval runs/raptor --images photos --probe-train labelled.parquet",
        "brdyn raptor-eval runs/raptor --images photos -n 100 --beyond 8",
    ),
    "raptor-rank": (
        "brdyn raptor-rank --model cifar_vit12 --images cifar10@test -n 500 --k 3 --out runs/ranks",
        "brdyn raptor-rank --model imgfocus_vits14 --images photos --ranks 0,8,full --steps 500",
    ),
    "raptor-import": (
        "brdyn raptor-import final_raptor3_seed_1101.pt --teacher-model dinov2_vitb14_reg --out runs/official",
        "brdyn raptor-import blocks.safetensors --boundaries 7,10 --out runs/official",
    ),
    "probe": (
        "brdyn probe --model imgfocus_vits14 --images labelled.parquet",
        "brdyn probe --model runs/raptor --images train.parquet --test test.parquet --seeds 5",
    ),
    "vit-train": (
        "brdyn vit-train --data cifar10 --drop-path 0.1 --epochs 50 --keep 0,10,best --out runs/vit",
        "brdyn vit-train --data photos --epochs 20 --held-out 500 --resume",
    ),
    "vitrm-train": (
        "brdyn vitrm-train --data cifar10 --latent-steps 6 --n-sup 4 --epochs 100 --out runs/vitrm",
        "brdyn vitrm-train --grid n=1,3,6 n_sup=1,2 --epochs 20 --out runs/grid",
    ),
    "vitrm-eval": (
        "brdyn vitrm-eval runs/vitrm --data cifar10 --most 8 --beyond 8",
        "brdyn vitrm-eval cifar_vit12 --data cifar10 -n 1000 --json",
    ),
    "compare": (
        "brdyn compare runs/phases runs/phases-cifar",
        "brdyn compare runs/dynamics runs/dynamics-untrained --out runs/compare --theme dark",
    ),
    "plot": (
        "brdyn plot runs/phases --theme dark --out slides",
        "brdyn plot runs/dynamics --format svg,pdf",
    ),
}
