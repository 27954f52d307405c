"""A caller of web services that counts every request.

A program of its own, with the standard library alone: tests run it in a pod (`support.caller`), where Python reads
it from standard input.

    python - URL INPUTS --connections 4 --rate 100 --seconds 10

Open loop: call number n is due n / rate seconds after the start, whatever became of those before it; one that finds all
connections busy is late, and its time counts from when it was due (no coordinated omission). With --rate 0 closed loop:
each connection calls again at once. Prints one JSON object: see `Counts.summary`.
"""

import argparse
import collections
import http.client
import itertools
import json
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any


class Counts:
    """What the connections found, together."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.statuses: collections.Counter[str] = collections.Counter()
        self.milliseconds: list[float] = []
        self.failures: list[str] = []
        self.sessions: collections.Counter[str] = collections.Counter()
        self.longest_gap = 0.0
        self.last_success = time.monotonic()

    def add(self, status: str, took: float, body: bytes) -> None:
        now = time.monotonic()
        with self.lock:
            self.statuses[status] += 1
            if status == "200":
                self.milliseconds.append(took * 1000)
                self.longest_gap = max(self.longest_gap, now - self.last_success)
                self.last_success = now
                outputs = json.loads(body)["outputParameters"]
                self.sessions[str(next(iter(outputs.values()), ""))] += 1
            elif len(self.failures) < 20:
                self.failures.append(f"{status}: {body[:300].decode(errors='replace')}")

    def summary(self) -> dict[str, Any]:
        times = sorted(self.milliseconds)

        def percentile(share: float) -> float:
            return round(times[min(int(len(times) * share), len(times) - 1)], 2) if times else 0.0

        return {
            "statuses": dict(self.statuses),
            "p50": percentile(0.5),
            "p99": percentile(0.99),
            "max": percentile(1.0),
            "longestGapSeconds": round(self.longest_gap, 3),
            "failures": self.failures,
            "answers": dict(self.sessions),
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("inputs")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--calls", type=int, default=0, help="end after so many")
    parser.add_argument("--until", default="", help="end as soon as there is such a file")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--token", default="", help="sent as a bearer token")
    options = parser.parse_args()
    counts = Counts()
    numbers = itertools.count()
    started = time.monotonic()
    headers = {"Content-Type": "application/json"}
    if options.token:
        headers["Authorization"] = f"Bearer {options.token}"

    def caller() -> None:
        target = urllib.parse.urlsplit(options.url)
        connection = None
        body = options.inputs.encode()
        while True:
            with counts.lock:
                number = next(numbers)
            due = time.monotonic() if not options.rate else started + number / options.rate
            if options.calls and number >= options.calls:
                return
            if options.seconds and due - started >= options.seconds:
                return
            if options.until and Path(options.until).exists():
                return
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=options.timeout)
                connection.request("POST", target.path, body, headers)
                response = connection.getresponse()
                answer = response.read()
                counts.add(str(response.status), time.monotonic() - due, answer)
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                counts.add(type(error).__name__, time.monotonic() - due, str(error).encode())
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.05)

    threads = [threading.Thread(target=caller) for _ in range(options.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(counts.summary()))


if __name__ == "__main__":
    main()
