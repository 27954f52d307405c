"""Looks at pools of the test cluster without a pause, so that what lasts for a moment only is seen as well.

    with looked_at(pool) as seen:
        ...
    assert seen.fewest_ready >= 2

What it keeps are extremes, each of the pool and node where it was most so.
"""

import contextlib
import json
import math
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from support.cluster import CONTEXT, wait_for
from support.faults import NAMESPACE, active_gateway
from support.pools import WORKERS, Json, Pool
from support.tools import tool

# Runs beside the active gateway's HAProxy until its standard input is closed, and prints the most slots that were open
# at once, by node. A server's name is NODE:POD:SLOT, and it is open when its administrative state is 0.
_OPEN_SLOTS: Final = """
import collections, json, select, socket, sys

def servers():
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect("/run/session-pools/admin.sock")
        admin.sendall(b"show servers state\\n")
        text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    _, head, *lines = text.strip().splitlines()
    columns = head[2:].split(" ")
    return [dict(zip(columns, line.split(" "))) for line in lines]

most, looks = collections.Counter(), 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    names = [row["srv_name"].split(":") for row in servers() if row["srv_admin_state"] == "0"]
    most |= collections.Counter(name[0] for name in names if len(name) == 3 and name[1].startswith(sys.argv[1]))
    looks += 1
print(json.dumps({"most": most, "looks": looks}))
"""


@dataclass
class Seen:
    """`most_open` and `looks_at_slots` are known at the end."""

    pools: tuple[str, ...]
    fewest_ready: float = math.inf  # session pods that are ready and stay
    most_pods: int = 0  # that hold resources, leaving ones included
    most_open: int = 0  # slots that the gateway had open
    looks_at_slots: int = 0  # how often these were counted
    pods: dict[str, Json] = field(default_factory=dict)  # by uid
    listed: bool = False  # until then it knows only some of them

    def change(self, kind: str, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self.pods.pop(uid, None)
        else:
            self.pods[uid] = pod
        if self.listed:
            self.look()

    def look(self) -> None:
        there = list(self.pods.values())
        standing = Counter(_home(pod) for pod in there if pod["status"]["phase"] not in ("Succeeded", "Failed"))
        ready = Counter(_place(pod) for pod in there if _serves(pod))
        self.most_pods = max(self.most_pods, *standing.values(), 0)
        self.fewest_ready = min(self.fewest_ready, *(ready[place] for place in product(self.pools, WORKERS)))


@contextlib.contextmanager
def pods_looked_at(*pools: Pool) -> Iterator[Seen]:
    """The session pods of pools of one namespace, those that are there and all that happens to them from now on."""
    seen = Seen(tuple(pool.name for pool in pools))
    there = sum(len(pool.pods()) for pool in pools)
    options = ("-l", f"sessionpools.dev/pool in ({','.join(seen.pools)})", "--watch", "--output-watch-events")
    watch = _kubectl("get", "pods", "-n", pools[0].namespace, *options, "-o", "json")
    follower = threading.Thread(target=_follow, args=(watch, seen))
    follower.start()
    try:
        wait_for(lambda: len(seen.pods) >= there, 30, "the session pods are listed")
        seen.listed = True
        seen.look()
        yield seen
        assert watch.poll() is None, "the watch has ended"
    finally:
        watch.kill()
        watch.wait()
        follower.join()


@contextlib.contextmanager
def looked_at(pool: Pool) -> Iterator[Seen]:
    """Its session pods, and its slots in the gateway."""
    gateway = active_gateway()["metadata"]["name"]
    command = ("python", "-c", _OPEN_SLOTS, f"{pool.name}-")
    slots = _kubectl("exec", gateway, "-i", "-n", NAMESPACE, "-c", "agent", "--", *command)
    try:
        with pods_looked_at(pool) as seen:
            yield seen
        found = json.loads(slots.communicate("\n", timeout=30)[0])
        seen.most_open, seen.looks_at_slots = max(found["most"].values()), found["looks"]
    finally:
        slots.kill()
        slots.wait()


def _kubectl(*arguments: str) -> subprocess.Popen[str]:
    command = [tool("kubectl"), "--context", CONTEXT, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _follow(watch: subprocess.Popen[str], seen: Seen) -> None:
    assert watch.stdout is not None
    for line in watch.stdout:  # one for each event
        event = json.loads(line)
        seen.change(event["type"], event["object"])


def _place(pod: Json) -> tuple[str, str]:
    metadata = pod["metadata"]
    return metadata["labels"]["sessionpools.dev/pool"], metadata["annotations"]["sessionpools.dev/node"]


def _home(pod: Json) -> tuple[str, str]:
    """As its place, but of this very pool: one of the same name may have been deleted a moment ago."""
    metadata = pod["metadata"]
    return metadata["labels"]["sessionpools.dev/pool-uid"], metadata["annotations"]["sessionpools.dev/node"]


def _serves(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
