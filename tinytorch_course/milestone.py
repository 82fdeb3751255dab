"""What all milestone scripts share: the command line, the folder of results, the gate, and the words at the end."""

import argparse
import itertools
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

import tinytorch as tt

from . import files, using


class Gate(NamedTuple):
    """What a milestone stands for: `metric` must be at least `least`. `what` says so in words."""

    metric: str
    least: float
    what: str


def run(main, description, *, steps, out, choices=None):
    """Read the command line, call `main(options)`, and exit with its status (0 or 1), or 130 after Ctrl-C.

    steps: how long to train unless told, a number, or a function of the options that says it.
    choices: the script's own options, {"corpus": {"patterns": "what it is", "stdlib": ...}}, the default first.
    With `--using DIR`, or where the script lies in a workspace of the course, it runs on the student's framework.
    What a user can put right ends in one plain sentence; everything else keeps its traceback.
    """
    if (folder := using.folder_of_the_student(sys.argv, tt.__file__)) is not None:
        sys.exit(using.run_on_theirs(folder, sys.argv))
    options = read_options(description, steps, Path(out), choices=choices)
    tt.manual_seed(options.seed)
    try:
        with threadpool_limits(1):  # for models this small more threads only wait, and they change the rounding
            status = main(options)
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "Stopped by Ctrl-C.", file=sys.stderr)
        status = 130
    except (tt.CheckpointError, tt.TrainingFailed, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


def read_options(description, steps, out, argv=None, choices=None):
    """The options of this run, checked. `--resume` takes seed, steps and choices from the run that it goes on with."""
    choices = choices or {}
    parser = _parser(description, steps, out, choices)
    options = parser.parse_args(argv)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps needs at least 1, but got {options.steps}.")
    if options.seed is not None and options.seed < 0:
        parser.error(f"--seed needs 0 or more, but got {options.seed}.")
    try:
        tt.device.check_device(options.device)
        earlier = _earlier_run(options.out, choices) if options.resume else {}
        make_writable(options.out)
        options.lock = FileLock(options.out / ".lock", is_singleton=True)  # held until this process ends
        options.lock.acquire(timeout=0)
    except Timeout:
        parser.error(f"Another run is at work in {options.out}. Wait for it, or name another folder with --out.")
    except (RuntimeError, OSError) as error:
        parser.error(str(error))
    defaults = {"seed": 0} | {name: next(iter(values)) for name, values in choices.items()}
    for name, default in defaults.items():
        given = getattr(options, name)
        kept = earlier.get(name, default if given is None else given)
        if given not in (None, kept):
            parser.error(f"--resume goes on with a run of {name} {kept}, so --{name} {given} cannot be kept.")
        setattr(options, name, kept)
    options.name, options.default_steps = out.name, steps(options) if callable(steps) else steps
    options.steps = options.steps or earlier.get("steps", options.default_steps)
    if not options.resume:
        _put_away(options.out)
    write_json(options.out / "run.json", {name: getattr(options, name) for name in ("steps", *defaults)})
    return options


def _put_away(out):
    """Clear a folder of an earlier run's results, so that nothing in it is taken for this run's."""
    if (out / "checkpoints").exists():
        names = (f"checkpoints-previous{n}" for n in itertools.chain([""], itertools.count(2)))
        (out / "checkpoints").rename(next(path for path in map(out.joinpath, names) if not path.exists()))
    for name in ("metrics.json", "loss.png"):
        (out / name).unlink(missing_ok=True)


def _parser(description, steps, out, choices):
    parser = argparse.ArgumentParser(allow_abbrev=False, description=description.partition("\n")[0])
    parser.add_argument("--train-only", action="store_true", help="train and report, then stop")
    default_steps = "depends on the other options" if callable(steps) else steps
    parser.add_argument("--steps", type=int, help=f"how long to train (default {default_steps})")
    parser.add_argument("--seed", type=int, help="where the random numbers start (default 0)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default cpu)")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"where results go (default {out})")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument(
        "--using", metavar="DIR", help="run on the framework that you wrote in this folder of the course"
    )
    for name, values in choices.items():
        what = "; ".join(f"{value}: {meaning}" for value, meaning in values.items())
        parser.add_argument(f"--{name}", choices=tuple(values), help=f"{what} (default {next(iter(values))})")
    return parser


def _earlier_run(out, choices):
    path = out / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        chosen = {name: run.get(name, next(iter(values))) for name, values in choices.items()}
        if any(value not in choices[name] for name, value in chosen.items()):
            raise ValueError(chosen)
        return {"seed": int(run["seed"]), "steps": int(run["steps"]), **chosen}
    except FileNotFoundError:
        raise FileNotFoundError(f"--resume found no run in {out}. Start one without --resume.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OSError(f"{path} is not the record of a run. Start a new one without --resume.") from None


def make_writable(folder):
    """Create a folder where it is missing. Raises OSError, with the reason, where nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"--out needs a folder that can be written to, but {folder} cannot ({error.strerror}). Name another."
        ) from error


def write_json(path, content):
    """Write all of a JSON file, or nothing of it."""
    files.write(path, json.dumps(content, indent=2) + "\n")


def peak_memory_mb():
    """The most memory that this process has held so far, in MB (1e6 bytes)."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    if sys.platform == "linux":  # getrusage there includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def report(options, trainer, metrics, gates):
    """Write metrics.json and loss.png, print the summary, and return the exit status: 1 where a gate is not met.

    trainer: whose losses are drawn; or {name: trainer}, where several models are compared.
    """
    write_json(options.out / "metrics.json", metrics)
    compared = isinstance(trainer, dict)
    history = {name: each.history for name, each in trainer.items()} if compared else trainer.history
    tt.plot_loss(history, options.out / "loss.png", title=options.name)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:<{width}}  {_readable(value)}")
    results = sorted(path.name for path in options.out.iterdir() if not path.name.startswith("."))
    print(f"results in {options.out}: {', '.join(results)}")
    missed = [gate for gate in gates if not metrics[gate.metric] >= gate.least]
    for gate in missed:
        print(f"Not reached: the gate is that {gate.what}, but {gate.metric} is {_readable(metrics[gate.metric])}.")
    if missed and options.steps < options.default_steps:
        print(f"This run was {options.steps} steps; the milestone is made for {options.default_steps}.")
    return 1 if missed else 0


def _readable(value):
    if isinstance(value, str):
        return value
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
