"""How long the figures of a score file take, as a ratio to reading the file (CPU time, best of several runs).

    python benchmarks/benchmark_evaluate.py SCORES [PROTOCOL]

Ratios rather than seconds, since they carry over from one machine to another.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from errors import UserError, run_command
from evaluate import evaluate, read_scores
from metrics import bootstrap_intervals


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The least CPU time of several runs of one piece of work."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise UserError("usage: python benchmarks/benchmark_evaluate.py SCORES [PROTOCOL]")
    paths = [Path(argument) for argument in sys.argv[1:]]
    table = read_scores(*paths)
    scores, labels, speakers = table["score"], table["label"], table["speaker"]
    reading = cpu_seconds(lambda: read_scores(*paths))
    print(f"{len(table):,} scores; reading {' and '.join(p.name for p in paths)}: {reading:.2f} s CPU = 1")
    work = {
        "all figures, every attack": lambda: evaluate(table, bootstrap=0),
        "1000 replicates over trials": lambda: bootstrap_intervals(scores, labels),
    }
    if speakers.nunique() > 1:
        work["1000 replicates over speakers"] = lambda: bootstrap_intervals(scores, labels, speakers=speakers)
    for name, run in work.items():
        print(f"{name:<30}{cpu_seconds(run) / reading:>8.2f}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
