"""What an installed wheel does, without the source tree. `make package` runs it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import homojax as hj

ENVIRONMENT = Path(sys.prefix).absolute()
COMMANDS = (  # sources that ship with the package, and a file
    *("--version", "sweep --source trained-mhc --epsilon 0.05 --depth 2 --measure spectrum"),
    "audit model.npz --pattern layers.*.mixing --iterations 20",
    "verify --replay case.npz",
    *("runs", "--print-completion bash"),
)


def main() -> None:
    """Import the package, and run its command in an empty folder."""
    assert Path(hj.__file__).is_relative_to(ENVIRONMENT), hj.__file__
    assert Path(hj.__file__).with_name("py.typed").exists() and len(hj.CLAIMS) > 60
    os.chdir(tempfile.mkdtemp())
    np.savez("model.npz", **{f"layers.{k}.mixing": 2.0 * np.eye(4) for k in range(4)})
    arrays = {"logits": np.eye(4), "epsilon": np.array(1.0)}
    case = hj.lab.cases.Case("sigma2_falls", "projection", "probe", arrays, {})
    hj.lab.cases.save_case(case, Path("case.npz"))
    program = ENVIRONMENT / "bin" / "homojax"
    for command in COMMANDS:
        print(f"homojax {command}", flush=True)
        subprocess.run([program, *command.split()], check=True, stdout=subprocess.DEVNULL)
    pages = sorted(path.as_posix() for path in Path().glob("runs/*/report.html"))
    assert pages == ["runs/audit/report.html", "runs/sweep/report.html"], pages


if __name__ == "__main__":
    main()
