"""Calls a web service and says how long it took; scripts/demo runs it inside session pods, by `kubectl exec`.

`call ADDRESS`  a session at that pod address: the first call on a new connection, then 50 more on the same.
`start`         the same call in a newly started interpreter: start, import, init, function.

Both read the service and an input that it accepts (its warm-up call) from the pod's own revision directory.
"""

import http.client
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

REVISION = Path("/etc/session-pools/revision/session.json")
WARM_CALLS = 50

# What a script that calls the function without Session Pools does.
PROGRAM = """
import importlib, json, sys
service = json.load(open(sys.argv[1]))
sys.path.insert(0, service["code"])
for name in service["modules"]:
    importlib.import_module(name)
def named(reference):
    module, function = reference.split(":")
    return getattr(importlib.import_module(module), function)
if service["init"]:
    named(service["init"])()
print("answer", json.dumps(named(service["entrypoint"])(**service["warmup"])))
"""


def call(address: str) -> None:
    body = json.dumps(json.loads(REVISION.read_text())["warmup"])
    connection = http.client.HTTPConnection(address, 9000, timeout=30)
    times = []
    for _ in range(1 + WARM_CALLS):
        begin = time.perf_counter()
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        times.append((time.perf_counter() - begin) * 1000)
        if not answer["success"]:
            sys.exit(answer["errorMessage"])
    (output,) = answer["outputParameters"].values()
    print(f"{times[0]:.1f}\t{statistics.median(times[1:]):.2f}\t{json.dumps(output)}")


def start() -> None:
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, REVISION], check=True, stdout=subprocess.PIPE, text=True)
    took = (time.perf_counter() - begin) * 1000
    (answer,) = (line.removeprefix("answer ") for line in done.stdout.splitlines() if line.startswith("answer "))
    print(f"{took:.0f}\t{answer}")


if __name__ == "__main__":
    {"call": call, "start": start}[sys.argv[1]](*sys.argv[2:])
