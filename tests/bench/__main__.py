"""`python -m bench`: measure Session Pools and hold what was found to the bars in bars.py.

    make bench                                     everything that needs no cluster
    PYTHONPATH=operator:tests python -m bench --only direct --only memory
    PYTHONPATH=operator:tests python -m bench --cluster     on the cluster of `make test` too
    make bench-scale                                        what needs the cluster with simulated nodes, and only that

Prints a table and writes build/bench.json (build/bench-scale.json of what is on simulated nodes alone). Ends with 1
when a bar does not hold. docs/benchmarks.md describes the method.
"""

import argparse
import signal
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
    scale,
    tail,
    throughput,
    tokens,
    warm,
)
from bench.bars import SCALE_NODES, SCALE_POOLS, SCALE_SESSIONS
from bench.figures import Figure, progress

_MEASURES: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "warm": warm.measure,
    "tokens": tokens.measure,
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
    SCALE_POOLS: scale.measure_pools,
    SCALE_NODES: scale.measure_nodes,
    SCALE_SESSIONS: scale.measure_sessions,
}
_NEEDS_CLUSTER: Final = frozenset({"cluster", "pod-growth"})
_NEEDS_SIMULATED_NODES: Final = frozenset({SCALE_POOLS, SCALE_NODES, SCALE_SESSIONS})


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended on the way out
    found: list[Figure] = []
    for name, measure in _MEASURES.items():
        if name in options.only:
            progress(f"{name}: begin")
            found += measure(options.quick)
            figures.write(found, options.output)  # what was found stays if a later measure fails
    print(figures.table(found))
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
    parser.add_argument("--scale", action="store_true", help="measure on the cluster with simulated nodes, only there")
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, not how it performs")
    parser.add_argument(
        "--output", type=Path, help="default: build/bench.json; build/bench-scale.json of simulated nodes alone"
    )
    options = parser.parse_args()
    if options.only is None:
        options.only = _measures(options)
    if options.output is None:
        simulated = _NEEDS_SIMULATED_NODES.issuperset(options.only)
        options.output = Path("build/bench-scale.json" if simulated else "build/bench.json")
    return options


def _measures(options: argparse.Namespace) -> frozenset[str]:
    """What is measured if no measure is named."""
    if options.scale:
        return _NEEDS_SIMULATED_NODES
    chosen = frozenset(_MEASURES) - _NEEDS_SIMULATED_NODES
    if options.cluster:
        return chosen
    progress(f"left out: {', '.join(sorted(_NEEDS_CLUSTER))}; --cluster measures on the cluster of the tests too")
    return chosen - _NEEDS_CLUSTER


if __name__ == "__main__":
    sys.exit(main())
