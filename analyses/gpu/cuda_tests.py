"""The tests that need a GPU, run and recorded: `python -m analyses.gpu.cuda_tests --device cuda`."""

from __future__ import annotations

import subprocess
import sys

from analyses.recording import ROOT, Choice, command, parser, record


def run(choice: Choice) -> None:
    """Exit code 1 where one fails; it is recorded in any case."""
    tests = [sys.executable, "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "tests/test_cuda.py"]
    done = subprocess.run(tests, capture_output=True, text=True, cwd=ROOT)
    lines = done.stdout.strip().splitlines()[-40:]
    print("\n".join(lines))
    content = {"passed": done.returncode == 0, "said": lines[-1] if lines else done.stderr[-500:], "lines": lines}
    print("written to", record("gpu.cuda_tests", choice.device, content, choice.out, file="cuda_tests"))
    sys.exit(1 if done.returncode else 0)


main = command(run, parser(__doc__), __name__)
