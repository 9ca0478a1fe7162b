"""The runs that want a GPU, in the order of their worth: analyses/gpu/README.md.

python -m analyses.gpu.index            # rewrite
python -m analyses.gpu.index --check    # fail if it differs from the scripts
"""

from __future__ import annotations

from pathlib import Path

from analyses.gpu import raptor_imgfocus, speed, stochastic_depth, vitrm_cifar, vitrm_grid
from analyses.gpu.packing import MOST, PART
from analyses.gpu.piece import MINUTES, GpuRun, sizes
from analyses.recording import suffix_of, write_or_check

PAGE = Path(__file__).parent / "README.md"
RUNS: tuple[GpuRun, ...] = (
    vitrm_cifar.RUN,
    stochastic_depth.RUN,
    raptor_imgfocus.RUN,
    speed.RUN,
    vitrm_grid.RUN,
)
HEAD = f"""# Runs for a GPU

<!-- written by `python -m analyses.gpu.index`; do not edit -->

Everything in brdyn that is to be measured at full size, one script a run, the most telling first. A script needs the
project, the packages in `pyproject.toml` (not `datasets`, and no network) and the data files named below in one folder:

```console
$ python -m analyses.gpu.vitrm_cifar --data data --out piece1
$ python -m analyses.gpu.vitrm_cifar --data data --state piece1 --out piece2
```

Where files travel in transfers of bounded size, send data and state apart, into folders beside the project, and give
`--home` one of its own too. Data may lie elsewhere in the next piece.

A piece begins nothing new after `--minutes` ({MINUTES:g} by default) and ends well within ten. It prints a short table
last and leaves in `--out`: the table, `results.tar.gz`, and its state, at most {MOST // 2**20} MiB in files of at most
{PART // 2**20} MiB with checksums (`state.json`, `state.000`, …). The next piece takes it up with `--state`, on the
same machine or another; where the last piece's files are still there, they are used. `--tiny --device cpu` is a dry
run. Runs 2 and 3 put two processes on the card: their times and images/s are of work side by side. At home,

```console
$ python -m analyses.gpu.collect piece1 piece2 --state
```

puts the results into `analyses/results` and writes every page and table anew; `make figures` then redraws the
notebooks.

Minutes are expected ones, on an H100: none has been run yet. See `docs/evidence.md` for what each would tell.

Data: `cifar10/train.parquet` and `cifar10/test.parquet` (columns `image` and `label`), `photos.parquet` (photographs of
any size), `trunk.safetensors` (the offline model's weights, for a machine without its package: `python -m
analyses.export_trunk --dtype float16 --file trunk.safetensors`).
"""


def page() -> str:
    """The index, as Markdown."""
    lines = [HEAD]
    for number, run in enumerate(RUNS, 1):
        lines += [
            f"## {number}. `analyses.gpu.{run.name}`",
            "",
            f"- Shows: {run.shows}.",
            f"- Data: {sizes(run.data)}" + (f"; if there: {sizes(run.optional)}." if run.optional else "."),
            f"- Minutes expected on an H100: {run.minutes}.",
            f"- State: {run.carries}.",
            f"- Writes, in `analyses/results`: {', '.join(f'`{pattern}`' for pattern in full_size(run))}.",
            "",
        ]
    return "\n".join(lines)


def full_size(run: GpuRun) -> list[str]:
    """Its results without those of dry runs."""
    patterns = (pattern.format(suffix=suffix_of("cuda")) for pattern in run.writes)
    return [pattern for pattern in patterns if "/tiny/" not in pattern]


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page()})


if __name__ == "__main__":
    main()
