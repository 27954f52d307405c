"""`python -m bench`: measure Session Pools and hold what was found to the bars in bars.py.

    make bench                                     everything that needs no cluster
    PYTHONPATH=operator:tests python -m bench --only direct --only memory
    PYTHONPATH=operator:tests python -m bench --cluster     on the cluster of `make test` too

Prints a table and writes build/bench.json. Ends with 1 when a bar does not hold. docs/benchmarks.md describes the
method.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import (
    cluster,
    direct,
    figures,
    first_call,
    flood,
    gateway_kills,
    growth,
    kills,
    memory,
    pod_growth,
    tail,
    throughput,
    warm,
)
from bench.figures import Figure, progress

_MEASURES: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "warm": warm.measure,
    "throughput": throughput.measure,
    "tail": tail.measure,
    "direct": direct.measure,
    "memory": memory.measure,
    "first-call": first_call.measure,
    "growth": growth.measure,
    "kills": kills.measure,
    "gateway-kills": gateway_kills.measure,
    "flood": flood.measure,
    "cluster": cluster.measure,
    "pod-growth": pod_growth.measure,
}
_NEEDS_CLUSTER: Final = frozenset({"cluster", "pod-growth"})


def main() -> int:
    options = _options()
    found: list[Figure] = []
    for name, measure in _MEASURES.items():
        if name in _NEEDS_CLUSTER and not options.cluster:
            if options.only is None:
                progress(f"{name}: left out; --cluster measures on the cluster of the tests")
            continue
        if options.only is None or name in options.only:
            progress(f"{name}: begin")
            found += measure(options.quick)
    print(figures.table(found))
    figures.write(found, options.output)
    progress(f"written to {options.output}")
    return 1 if any(item.holds is False for item in found) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Session Pools with real processes and hold the figures to their bars.",
        epilog="Run it on a machine that does little else; ratios and their spread are what counts on one that does.",
    )
    parser.add_argument("--only", action="append", choices=list(_MEASURES), help="only this measure; can be repeated")
    parser.add_argument("--cluster", action="store_true", help="measure on the kind cluster of the tests as well")
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, not how it performs")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"), help="default: %(default)s")
    options = parser.parse_args()
    options.cluster = options.cluster or bool(options.only and _NEEDS_CLUSTER & set(options.only))
    return options


if __name__ == "__main__":
    sys.exit(main())
