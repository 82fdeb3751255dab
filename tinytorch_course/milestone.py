"""What all milestone scripts share: the command line, the folder of results, the gate, and the words at the end."""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import tinytorch as tt


class Gate(NamedTuple):
    """What a milestone stands for: `metric` must be at least `least`. `what` says so in words."""

    metric: str
    least: float
    what: str


def run(main, description, *, steps, out):
    """Read the command line, call `main(options)`, and exit with its status (0 or 1), or 130 after Ctrl-C.

    What a user can put right ends in one plain sentence; everything else keeps its traceback.
    """
    options = read_options(description, steps, Path(out))
    tt.manual_seed(options.seed)
    try:
        status = main(options)
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "Stopped by Ctrl-C.", file=sys.stderr)
        status = 130
    except (tt.CheckpointError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


def read_options(description, steps, out, argv=None):
    """The options of this run, checked. `--resume` takes seed and steps from the run that it goes on with."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--train-only", action="store_true", help="train and report, then stop")
    parser.add_argument("--steps", type=int, help=f"how long to train (default {steps})")
    parser.add_argument("--seed", type=int, help="where the random numbers start (default 0)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default cpu)")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"where results go (default {out})")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    options = parser.parse_args(argv)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps needs at least 1, but got {options.steps}.")
    if options.seed is not None and options.seed < 0:
        parser.error(f"--seed needs 0 or more, but got {options.seed}.")
    try:
        tt.device.check_device(options.device)
        earlier = _earlier_run(options.out) if options.resume else {}
        make_writable(options.out)
    except (RuntimeError, OSError) as error:
        parser.error(str(error))
    if options.seed not in (None, earlier.get("seed", options.seed)):
        parser.error(f"--resume goes on with a run of seed {earlier['seed']}, so --seed {options.seed} cannot be kept.")
    options.name, options.default_steps = out.name, steps
    options.seed = earlier.get("seed", options.seed or 0)
    options.steps = options.steps or earlier.get("steps", steps)
    write_json(options.out / "run.json", {"seed": options.seed, "steps": options.steps})
    return options


def _earlier_run(out):
    path = out / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return {"seed": int(run["seed"]), "steps": int(run["steps"])}
    except FileNotFoundError:
        raise FileNotFoundError(f"--resume found no run in {out}. Start one without --resume.") from None
    except (ValueError, KeyError, TypeError):
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
    beside = path.with_name(path.name + ".writing")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


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
    """Write metrics.json and loss.png, print the summary, and return the exit status: 1 where a gate is not met."""
    write_json(options.out / "metrics.json", metrics)
    tt.plot_loss(trainer.history, options.out / "loss.png", title=options.name)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:<{width}}  {_readable(value)}")
    print(f"results in {options.out}: {', '.join(sorted(path.name for path in options.out.iterdir()))}")
    missed = [gate for gate in gates if not metrics[gate.metric] >= gate.least]
    for gate in missed:
        print(f"Not reached: the gate is that {gate.what}, but {gate.metric} is {_readable(metrics[gate.metric])}.")
    if missed and options.steps < options.default_steps:
        print(f"This run was {options.steps} steps; the milestone is made for {options.default_steps}.")
    return 1 if missed else 0


def _readable(value):
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
