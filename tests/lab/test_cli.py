"""What a person meets at the terminal: the run that succeeds, and one sentence for each that
cannot.
"""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import homojax as hj
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from homojax.lab.probe.config import Calibrate, FrontierSearch, Search, SensitivityScan
from homojax.lab.sources import SOURCES
from homojax.lab.store import provenance
from homojax.lab.sweep.config import GROUPS, Sweep
from homojax.lab.train.config import Train
from homojax.lab.verify.config import Verification
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

# Shapes and precision of the docstrings' examples: all of them share what is compiled.
FLAGS = "--epsilon 0.5 5 --depth 1 2 --n 4 --seeds 2 --samples 8 --dtype float32"
WHOLE = FLAGS.split()
TINY = [*WHOLE, "--measure", "depth"]
TINY_TOML = 'depth = [1, 2]\nsamples = 8\ndtype = "float32"\nmeasure = ["depth"]\n'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys, *args):
    """(exit code, standard output, standard error on one line) of a command."""
    try:
        main(list(args))
        code = 0
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_a_sweep_leaves_data_figures_and_a_report_that_opens_alone(capsys):
    code, out, _ = said(capsys, "sweep", *WHOLE, "--out", "runs/a")
    assert code == 0
    assert "hilbert" in out and "0 violated" in out and "runs/a/report.html" in out
    run = Path("runs/a")
    assert sorted(path.name for path in run.iterdir()) == [
        "figures",
        "gaussian.zarr",
        "report.html",
        "run.json",
    ]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["a"]
    ds = xr.load_dataset(run / "gaussian.zarr", engine="zarr", consolidated=False)
    assert ds.sizes == {
        "n": 1,
        "epsilon": 2,
        "seed": 2,
        "layer": 2,
        "depth": 2,
        "snr": 6,
        "alpha": 7,
    }
    page = (run / "report.html").read_text()
    assert page.count("<img") == 4 == len(list((run / "figures").glob("*.png")))
    assert "http:" not in page and "https:" not in page and 'src="data:image/png;base64,' in page
    assert all(
        picture.read_bytes()[:4] == b"\x89PNG" for picture in (run / "figures").glob("*.png")
    )

    code, _, err = said(capsys, "sweep", *TINY, "--out", "runs/a")
    assert code == 2 and "runs/a exists already" in err and "--overwrite" in err
    before = (run / "report.html").stat().st_mtime_ns
    code, _, _ = said(capsys, "sweep", *TINY, "--out", "runs/a", "--overwrite")
    assert code == 0 and (run / "report.html").stat().st_mtime_ns > before
    assert sorted(path.name for path in Path("runs").iterdir()) == ["a"]


def test_overwrite_spares_what_is_not_a_run(capsys):
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    code, _, err = said(capsys, "sweep", *TINY, "--out", "thesis", "--overwrite")
    assert code == 2 and "holds what homojax did not write" in err
    assert Path("thesis/chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["swep"], 'there is no verb "swep": did you mean "sweep"?'),
        (
            ["sweep", "--source", "gausian"],
            'there is no source "gausian": did you mean "gaussian"?',
        ),
        (["sweep", "--epsilon", "0"], "--epsilon 0.0 is not possible"),
        (["sweep", "--epsilon", "-1"], "--epsilon -1.0 is not possible"),
        (["sweep", "--epsilon", "nan"], "--epsilon nan is not possible"),
        (["sweep", "--epsilon", "warm"], "neither a number nor a geometric grid"),
        (["sweep", "--epsilon", ""], '--epsilon "" is neither a number nor a geometric grid'),
        (["sweep", "--epsilon"], "--epsilon has no value"),
        (["sweep", "--depth", "--n", "4"], "--depth has no value: give at least one, or leave"),
        (["verify", "--claims"], "--claims has no value: give at least one, or leave it out"),
        (["train", "--depths"], "--depths has no value: give at least one, or leave it out"),
        (["sweep", "--depth", "0"], "--depth 0 is not possible"),
        (["sweep", "--alpha"], "--alpha has no value"),
        (["sweep", "--n", "1"], "--n 1 is not possible"),
        (["sweep", "--array", "foo"], '--array is read only by source "file"'),
        (["sweep", "--orientation", "inputs-first"], "--orientation is read only by"),
        (["train", "--steps", "-5"], "--steps must be a whole number of at least 1"),
        (["sweep", "--refine", "0.1", "--shard", "0/2"], "leave out --shard or --refine"),
        (["sweep", "--config", "none.toml"], "cannot read the config none.toml"),
        (["sweep", "--source", "file"], "needs a path"),
        (["sweep", "--source", "file", "--path", "none.npy"], "there is no file none.npy"),
        (["sweep", "--source", "trained-mhc", "--n", "8"], "has n = 4 only"),
        (["verify", "--n", "200000", "--cells", "1"], "GB, and this machine has"),
        (["probe", "refute", "sigma2_falls", "--n", "200000"], "GB, and this machine has"),
        (["probe", "tighten", "hilbert", "--n", "200000"], "GB, and this machine has"),
        (["probe", "frontier", "--n", "100000"], "GB, and this machine has"),
        (["probe", "calibrate", "--sigma2", ".5", "--n", "200000"], "GB, and this machine has"),
        (["sweep", "--out", ""], "--out is empty: name a path, or leave the option out."),
        (["sweep", "--sed", "3"], 'there is no option "--sed": did you mean "--seed"?'),
        (["sweep", "--seed=3", "--n"], "--n has no value"),
        (["sweep", "--samples", "many"], '--samples "many" is not a whole number.'),
        (["sweep", "--n", "4", "4.5"], '--n "4.5" is not a whole number.'),
        (["sweep", "--tol=tiny"], '--tol "tiny" is not a number.'),
        (["sweep", "--dtype", "float16"], "--dtype must be one of float32, float64, not "),
        (["sweep", "--seeds", "3", "4"], '"4" belongs to no option'),
        (["sweep", "--overwrite", "all"], '"all" belongs to no option'),
        (["probe", "tighten"], "name a claim: homojax probe tighten CLAIM"),
        (["probe", "tighten", "hilbert", "x"], '"x" belongs to no option'),
        (["runs", "shw"], 'there is no "shw": did you mean "show"?'),
        (["train", "--depth", "2", "--depths", "3"], "leave --depth out"),
        (["audit", " "], "a path is empty: name one, or leave the option out."),
        (["train", "--steps", "0"], "steps must be a whole number of at least 1, got 0."),
        (["train", "--streams", "1"], "streams must be a whole number of at least 2, got 1."),
        (["train", "--mixer", "sinkhornn"], 'did you mean "sinkhorn"?'),
    ],
)
def test_a_mistake_is_told_in_one_sentence_with_exit_code_2(capsys, args, message):
    code, _, err = said(capsys, *args)
    assert code == 2
    assert err.startswith("homojax: ") and message in err and "Traceback" not in err
    assert err.strip().count("\n") == 0
    assert not Path("runs").exists()


def test_a_key_that_no_sweep_has_is_refused_before_anything_runs(capsys):
    Path("my.toml").write_text(
        '[[sweep]]\nsource = "gaussian"\n[[sweep]]\nname = "b"\nepsilonn = [1.0]\n'
    )
    code, _, err = said(capsys, "sweep", "--config", "my.toml")
    assert code == 2 and 'no sweep has the key "epsilonn"; did you mean "epsilon"?' in err
    Path("my.toml").write_text(
        '[[sweep]]\nsource = "gaussian"\n[[sweep]]\nname = "b"\nsource = "digit"\n'
    )
    code, _, err = said(capsys, "sweep", "--config", "my.toml")
    assert code == 2 and 'did you mean "digits"?' in err
    Path("my.toml").write_text('shard = "0/2"\n')
    code, _, err = said(capsys, "sweep", "--config", "my.toml")
    assert code == 2 and "it is an option of the command; give --shard in the terminal" in err
    Path("my.toml").write_text('shrad = "0/2"\n')
    assert 'did you mean "shard"?' in said(capsys, "sweep", "--config", "my.toml")[2]
    Path("my.toml").write_text("[[sweeps]]\n")
    assert 'did you mean "sweep"?' in said(capsys, "sweep", "--config", "my.toml")[2]


def test_flags_win_over_the_config(capsys):
    np.save("mine.npy", np.random.default_rng(0).standard_normal((2, 4, 4)))
    Path("my.toml").write_text(f'source = "file"\npath = "mine.npy"\nepsilon = [9.0]\n{TINY_TOML}')
    code, out, _ = said(capsys, "sweep", "--config", "my.toml", "--epsilon", "0.5", "--out", "mine")
    assert code == 0 and "mine.npy" in out
    ds = xr.load_dataset("mine/file.zarr", engine="zarr", consolidated=False)
    assert ds.epsilon.values.tolist() == [0.5] and ds.depth.values.tolist() == [1, 2]


def test_help_names_every_verb_and_option(capsys):
    code, out, _ = said(capsys, "--help")
    assert code == 0 and "sweep" in out and "[options]" in out
    code, out, _ = said(capsys, "sweep", "--help")
    assert code == 0 and all(
        flag in out
        for flag in ("--source", "--epsilon", "--retention", "--iterations", "--overwrite")
    )
    assert all(source in out for source in SOURCES)
    assert "architecture options" in said(capsys, "train", "--help")[1]
    assert said(capsys, "help")[1] == said(capsys)[1] == said(capsys, "-h")[1]
    assert said(capsys, "--version")[:2] == (0, f"homojax {version('homojax')}\n")


def completed(script, *words):
    """What bash offers for the last of these words."""
    call = (
        f"source {script}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        '$(complete -p homojax | sed -E "s/.*-F ([^ ]+).*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_verbs_probes_and_options(capsys, tmp_path):
    code, script, _ = said(capsys, "--print-completion", "bash")
    (tmp_path / "homojax.bash").write_text(script)
    offered = partial(completed, tmp_path / "homojax.bash")
    assert code == 0 and {"sweep", "audit", "runs"} <= set(offered("homojax", ""))
    assert offered("homojax", "sw") == ["sweep"]
    assert offered("homojax", "sweep", "--eps") == ["--epsilon"]
    assert offered("homojax", "probe", "ti") == ["tighten"]
    assert all(word.startswith("-") for word in offered("homojax", "probe", "tighten", "--"))


@pytest.mark.parametrize("shell", ["fish", ""])
def test_a_shell_without_a_script_is_refused(capsys, shell):
    code, _, err = said(capsys, "--print-completion", shell)
    assert code == 2 and "there are: bash, zsh" in err


@pytest.mark.parametrize("verb", ["sweep", "verify", "probe", "probe tighten", "train", "runs"])
def test_no_option_shows_where_it_is_kept(capsys, verb):
    out = said(capsys, *verb.split(), "--help")[1]
    assert "config." not in out and "config options" not in out and "{None}" not in out


def test_a_reader_who_has_enough_ends_a_command_without_a_word():
    """As ``head`` does, at the first line."""
    for args in (["help"], ["runs", "list", "runs"]):
        Path("runs/one").mkdir(parents=True, exist_ok=True)
        Path("runs/one/run.json").write_text('{"homojax": "0", "verb": "sweep"}')
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "homojax", *args]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("verb", ["", "sweep", "verify", "probe", "probe tighten", "train"])
def test_help_imports_neither_jax_nor_what_draws(verb):
    code = (
        "import sys\nfrom homojax.lab.cli import main\n"
        f"try: main({[*verb.split(), '--help']})\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'jax', 'flax', 'orbax', 'xarray', 'matplotlib', 'optax'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_told_in_one_sentence_and_leaves_nothing_that_looks_whole(capsys):
    """The kernel refuses to let a file grow past 4 kB, as it would on a disk with no more room."""
    assert (
        said(capsys, "sweep", *TINY, "--out", "whole")[0] == 0
    )  # compiled, so that the cache of that has nothing to write
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        code, _, err = said(capsys, "sweep", *TINY, "--out", "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 1 and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("homojax: cannot write: File too large")
    assert not Path("full").exists()


def test_an_interrupt_is_told_and_the_run_goes_on_later():
    command = [
        sys.executable,
        "-m",
        "homojax",
        "sweep",
        *TINY,
        "--epsilon",
        "0.5:5:40",
        "--memory-mb",
        "0.001",
        "--measure",
        "spectrum",
        "--out",
        "long",
    ]
    inherited = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it, and so their children
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    signal.signal(signal.SIGINT, inherited)
    parts = None
    while process.poll() is None and not parts:
        parts = list(Path().glob("long.part/*.zarr/done/c/*"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (
        process.returncode == 130
        and "run the same command again to go on" in err
        and "Traceback" not in err
    )
    assert not Path("long").exists() and parts


def test_each_sweep_is_told_before_the_next_one_runs(capsys, monkeypatch):
    def stop_at_the_second(sweep, *args, **kwargs):
        if sweep.label == "b":
            raise KeyboardInterrupt
        return hj.sweep(sweep, *args, **kwargs)

    names = ('name = "a"', 'name = "b"\nn = [2]')
    Path("two.toml").write_text(TINY_TOML + "".join(f"[[sweep]]\n{name}\n" for name in names))
    with monkeypatch.context() as patch:
        patch.setattr("homojax.lab.sweep.report.run_sweep", stop_at_the_second)
        code, out, _ = said(capsys, "sweep", "--config", "two.toml", "--out", "two")
    assert code == 130 and out.count("projections converged") == 1
    code, out, _ = said(capsys, "sweep", "--config", "two.toml", "--out", "two")
    assert code == 0 and out.count("projections converged") == 2
    page = Path("two/report.html").read_text()
    assert page.index("<h2>a") < page.index("<h2>b")


def test_shards_share_a_folder_and_the_last_one_writes_the_report(capsys):
    def shard(which):
        return said(capsys, "sweep", *TINY, "--shard", which, "--out", "many")

    code, out, _ = shard("0/2")
    assert code == 0 and "This shard is done; others are not (gaussian: 2 of 4 blocks" in out
    assert not Path("many").exists()
    _, listed, _ = said(capsys, "runs", "list", ".")
    assert "many.part" in listed and "unfinished, 50% of its blocks" in listed
    _, shown, _ = said(capsys, "runs", "show", "many.part")
    assert said(capsys, "runs", "show", "many")[1] == shown
    (command,) = (line for line in shown.splitlines() if line.startswith("homojax sweep"))
    assert "with --out many, to go on" in shown
    again = [*shlex.split(command)[1:], "--shard", "0/2", "--out", "many"]
    assert "2 of 4 blocks" in said(capsys, *again)[1]  # what it says asks for this very run
    code, out, _ = shard("1/2")
    assert code == 0 and "8 of 8 projections converged" in out and "many/report.html" in out
    assert [path.name for path in Path().iterdir()] == ["many"]
    assert "many is finished already." in shard("0/2")[1]
    code, out, _ = said(capsys, "sweep", *TINY, "--shard", "0/2", "--out", "many", "--overwrite")
    assert code == 0 and "finished already, and no shard replaces it: remove it to start" in out
    _, shown, _ = said(capsys, "runs", "show", "many")
    assert "homojax sweep --n 4" in shown
    assert "many: sweep, finished" in shown and "8 of 8 projections converged" in shown


def test_a_refined_run_goes_on_by_the_command_that_it_names_and_ends_as_one_store(
    capsys, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("homojax.lab.sweep.refine.midpoints", stop)
        asked = (*TINY, "--refine", "1")
        code, _, err = said(capsys, "sweep", *asked, "--out", "fine")
    assert code == 130 and "run the same command again to go on" in err
    _, shown, _ = said(capsys, "runs", "show", "fine.part")
    (command,) = (line for line in shown.splitlines() if line.startswith("homojax sweep"))
    assert "--refine 1.0" in command
    code, out, _ = said(capsys, *shlex.split(command)[1:], "--out", "fine")
    assert code == 0 and "ε was refined from 2 to" in out and "width" in out
    assert [path.name for path in Path("fine").glob("*.zarr")] == ["gaussian.zarr"]
    assert "falls through a share" in Path("fine/report.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sweep", "--refine", "0.1", "--shard", "0/2", "--out", "a"], "leave out --shard or"),
        (["sweep", "--refine", "0.1", "--distributed", "--out", "a"], "leave out --shard or"),
        (["sweep", "--shard", "0/2"], "name the folder that all shards share: add --out"),
        (["sweep", "--shard", "2/2", "--out", "a"], '--shard "2/2" is none: give I/K'),
        (["sweep", "--shard", "0/1", "--distributed", "--out", "a"], "leave --shard out"),
        (["sweep", "--distributed", "--out", "a"], "JAX finds no cluster here"),
        (["runs"], "there are no runs in runs"),
        (["runs", "show", "a"], "a is no run: it has no run.json"),
    ],
)
def test_what_there_is_not_of_shards_and_runs_is_told_in_one_sentence(args, message, capsys):
    code, _, err = said(capsys, *args)
    assert code == 2 and message in err and not list(Path().iterdir())


def test_a_run_that_is_odd_is_told_and_hides_no_other(capsys):
    assert said(capsys, "sweep", *WHOLE, "--measure", "spectrum", "--out", "runs/whole")[0] == 0
    odd = {"empty": "{}", "list": "[1]", "words": "nope", "files": '{"homojax": "0", "files": 3}'}
    for name, text in odd.items():
        Path("runs", name).mkdir()
        Path("runs", name, "run.json").write_text(text)
        code, _, err = said(capsys, "runs", "show", f"runs/{name}")
        wrong = "is of no homojax run" if name in ("empty", "list") else "is damaged"
        assert code == 2 and wrong in err and err.count("\n") == 1
    listed = said(capsys, "runs")[1]
    assert listed.count("no homojax run") == 2 == listed.count("damaged")
    assert "finished" in listed and "is gone" not in listed
    shutil.rmtree("runs/whole/gaussian.zarr")
    assert "finished, but gaussian.zarr is gone" in said(capsys, "runs")[1]
    assert "finished, but gaussian.zarr is gone" in said(capsys, "runs", "show", "runs/whole")[1]


def test_a_command_that_is_printed_can_be_pasted(capsys, monkeypatch):
    assert said(capsys, "sweep", *WHOLE, "--measure", "spectrum", "--out", "runs/a b")[0] == 0
    for started, program in (
        (".venv/bin/homojax", ".venv/bin/homojax"),
        ("/site/homojax/__main__.py", f"{sys.executable} -m homojax"),
        ("/usr/bin/pytest", "homojax"),
    ):
        monkeypatch.setattr(sys, "argv", [started])
        assert f"\n{program} sweep --n 4" in said(capsys, "runs", "show", "runs/a b")[1]
        assert f"{program} VERB --help lists" in said(capsys, "help")[1]


def test_numbers_from_a_config_keep_every_digit(capsys):
    Path("my.toml").write_text(f"epsilon = [0.12345678901234567]\nn = 4\nseeds = 1\n{TINY_TOML}")
    code, _, _ = said(capsys, "sweep", "--config", "my.toml", "--out", "digits")
    assert code == 0
    ds = xr.load_dataset("digits/gaussian.zarr", engine="zarr", consolidated=False)
    assert ds.epsilon.values.tolist() == [0.12345678901234567]


def test_overwrite_removes_the_old_run_and_nothing_beside_it(capsys):
    assert said(capsys, "sweep", *TINY, "--out", "h")[0] == 0
    Path("h.old").mkdir()
    Path("h.old/notes.txt").write_text("precious")
    assert said(capsys, "sweep", *TINY, "--out", "h", "--overwrite")[0] == 0
    assert Path("h.old/notes.txt").read_text() == "precious" and sorted(
        p.name for p in Path().iterdir()
    ) == ["h", "h.old"]
    Path("h/thesis.tex").write_text("added later")
    code, _, err = said(capsys, "sweep", *TINY, "--out", "h", "--overwrite")
    assert code == 2 and "holds what homojax did not write" in err and Path("h/thesis.tex").exists()
    Path("link").symlink_to("h")
    code, _, err = said(capsys, "sweep", *TINY, "--out", "link", "--overwrite")
    assert code == 2 and "symbolic link" in err


@pytest.mark.slow
def test_logits_that_are_all_alike_make_a_run_like_any_other(capsys):
    np.save("zeros.npy", np.zeros((2, 3, 3)))
    Path("zeros.toml").write_text(f'source = "file"\npath = "zeros.npy"\n{TINY_TOML}')
    asked = ("--epsilon", "0.5", "5", "--measure", *GROUPS, "--out", "z")
    code, out, _ = said(capsys, "sweep", "--config", "zeros.toml", *asked)
    assert code == 0 and "0 violated" in out and len(list(Path("z/figures").iterdir())) == 4


def test_a_figure_that_cannot_be_drawn_does_not_lose_the_run(capsys, monkeypatch):
    from homojax.lab.sweep import report

    def broken(ds):
        raise ValueError("no ink")

    monkeypatch.setitem(report.FIGURES, "phase", (broken, report.FIGURES["phase"][1]))
    with pytest.warns(UserWarning, match="gaussian-phase.png could not be drawn: no ink"):
        code, _, _ = said(capsys, "sweep", *WHOLE, "--out", "r")
    assert code == 0 and len(list(Path("r/figures").iterdir())) == 3


def test_one_name_for_two_sweeps_is_refused_before_anything_runs(capsys):
    Path("two.toml").write_text('[[sweep]]\nname = "a"\n[[sweep]]\nname = "b"\nseed = 1\n')
    code, _, err = said(capsys, "sweep", "--config", "two.toml", "--name", "x")
    assert code == 2 and 'two sweeps are called "x"' in err and not Path("runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epsilon", "0.05:20:99999999999999"], "neither a number nor a geometric grid"),
        (["--epsilon", "1:inf:3"], "neither a number nor a geometric grid"),
        (["--depth", "1000000000000000"], "GB, and this machine has"),
        (["--samples", "100000000000000"], "GB, and this machine has"),
        (["--memory-mb", "inf"], "--memory-mb inf is not possible"),
        (["--out", "/proc/x"], "cannot make the folder"),
    ],
)
def test_what_cannot_fit_is_said_before_anything_runs(capsys, args, message):
    code, _, err = said(capsys, "sweep", "--n", "4", *args)
    assert code == 2 and message in err


@pytest.mark.parametrize(
    "run",
    [
        hj.sweep,
        hj.verify,
        hj.train,
        hj.frontier,
        hj.calibrate,
        lambda **how: hj.refute("sigma2_falls", **how),
        lambda **how: hj.audit({}, **how),
    ],
)
def test_progress_that_cannot_be_called_is_refused(run):
    with pytest.raises(InputError, match="progress = 3 cannot be called"):
        run(progress=3)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=SLOW) for name in ("latin-1", "cp1252"))]
)
def test_a_terminal_without_greek_gets_its_tables_all_the_same(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "homojax", "sweep", *TINY, "--out", "plain"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0 and not done.stderr.count(b"Traceback")
    assert b"projections converged" in done.stdout and b"?" in done.stdout
    assert Path("plain/report.html").exists()


def test_the_version_is_where_people_look_for_it(capsys):
    assert said(capsys, "--version")[1].split()[-1] == hj.__version__ != ""
    assert "usage: homojax" in said(capsys, "help")[1]


def test_a_source_has_its_own_depths_and_one_epsilon_is_drawn():
    flags = "--source trained-mhc --iterations 10 --epsilon 0.05 --measure spectrum depth"
    done = subprocess.run(
        [sys.executable, "-m", "homojax", "sweep", *flags.split(), "--out", "published"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "12 matrices of 10 alternations" in done.stdout
    ds = hj.open_run("published")
    assert ds.depth.values.tolist() == [1, 2, 4, 8, 12]
    assert (ds.status == hj.Status.CONVERGED).mean() < 1
    drawn = {path.name for path in Path("published/figures").iterdir()}
    assert {"trained-mhc-survival.png", "trained-mhc-entropy.png"} <= drawn


ASKED = {  # verb -> a config that differs from the default in fields of every kind
    "sweep": Sweep(
        epsilon=(0.1, 1 / 3), n=8, name="a b", iterations=2, path="c d.npy", source="file"
    ),
    "verify": Verification(claims=("hilbert", "2.3"), mutants=True, dtype="float32"),
    "probe refute": Search(epsilon=None, starts=3),
    "probe frontier": FrontierSearch(n=(3,)),
    "probe calibrate": Calibrate(retention=1e-5, depth=3, schedule=True, root="last"),
    "probe sensitivity": SensitivityScan(epsilon=(1.0, 2.0)),
    "train": Train(
        architecture=Architecture(depth=3, learned_alpha=True, learned=False),
        training=Training(steps=7),
        alpha=(0.25,),
        claims=False,
    ),
}


@pytest.mark.parametrize("verb", ASKED)
def test_what_a_dataset_says_of_how_to_run_it_again_asks_for_the_same(verb, monkeypatch):
    Path("c d.npy").touch()
    words = shlex.split(provenance(verb, ASKED[verb], dtype="float64")["command"])
    room = words[1]
    asked = []
    monkeypatch.setattr(
        f"homojax.lab.{room}.report.run_command", lambda command, _: asked.append(command)
    )
    claim = ["hilbert"] if verb == "probe refute" else []
    with pytest.raises(SystemExit):
        main([*words[1:], *claim])
    fields = vars(asked[0]).values()
    assert ASKED[verb] in fields
