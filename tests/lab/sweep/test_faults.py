"""A disk that is full, and a folder that turns read-only, stop a sweep by one sentence; then the
same command goes on to the same bytes.
"""

import errno
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, io, os, re, sys
from pathlib import Path
from homojax.lab.cli import main

kind, moments, top = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
writes, room = 0, float("inf")
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}


def refuse(event, args):
    '''Refuse writes when there is no more room; a full disk still renames and removes.'''
    global writes
    if event == "open":
        changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        changes = event in CHANGES and kind == READ_ONLY
    if changes and isinstance(args[0], (str, os.PathLike)) and str(args[0]).startswith(str(top)):
        writes += 1
        if writes > room:
            raise OSError(kind, os.strerror(kind), str(args[0]))


def run(out, allowed=float("inf")):
    global writes, room
    writes, room = 0, allowed
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(["sweep", "--epsilon", "0.5:5:2", "--depth", "1", "2", "--n", "4", "--seeds", "2",
                  "--measure", "spectrum", "--dtype", "float32", "--out", str(out)])
        except SystemExit as end:
            return end.code, said.getvalue()
        finally:
            room = float("inf")


def contents(out):
    (store,) = out.glob("*.zarr")
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


sys.addaudithook(refuse)
assert run(top / "whole")[0] == 0
whole, total = contents(top / "whole"), writes
assert whole and total > moments
for k in range(moments):
    room_now, out = k * total // moments, top / f"at-{k}"
    code, said = run(out, room_now)
    assert code in (1, 2) and "Traceback" not in said, (room_now, total, code, said)
    assert len(re.findall("^homojax: cannot .*" + os.strerror(kind), said, re.M)) == 1, said
    code, said = run(out)
    assert code == 0, (room_now, said)
    assert contents(out) == whole, (room_now, set(contents(out)) ^ set(whole))
print(total, "writes")
""".replace("READ_ONLY", str(errno.EROFS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_takes_no_more_is_told_in_one_sentence_and_the_sweep_goes_on(kind, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(kind), "7", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
