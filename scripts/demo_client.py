"""Calls a web service and says how long it took; scripts/demo runs it inside pods, by `kubectl exec`.

`login URL PASSWORD`     prints a token of the user admin; the gateways may learn of the web API's first key just now.
`call URL TOKEN INPUTS`  by the gateway: the first call on a new connection, then more on the same.
`crowd URL TOKEN INPUTS` far more calls at once than the pool's sessions and its queue take.
`start`                  in a session pod: the same call in a newly started interpreter: start, import, init, function.
"""

import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

REVISION = Path("/etc/session-pools/revision/session.json")
LOGIN_SECONDS = 60
WARM_CALLS = 200
CROWD = 300

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


def login(url: str, password: str) -> None:
    target = urllib.parse.urlsplit(url)
    body = json.dumps({"username": "admin", "password": password})
    deadline = time.monotonic() + LOGIN_SECONDS
    while True:
        try:
            connection = http.client.HTTPConnection(target.netloc, timeout=30)
            connection.request("POST", target.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, answer = response.status, response.read()
        except OSError as error:
            status, answer = 503, str(error).encode()
        if status == 200:
            print(json.loads(answer)["access_token"])
            return
        if status != 503 or time.monotonic() > deadline:
            sys.exit(f"login: {status}: {answer.decode()}")
        time.sleep(0.5)


def call(url: str, token: str, inputs: str) -> None:
    target = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    times = []
    for _ in range(1 + WARM_CALLS):
        begin = time.perf_counter()
        connection.request("POST", target.path, inputs, headers)
        answer = json.loads(connection.getresponse().read())
        times.append((time.perf_counter() - begin) * 1000)
        if not answer["success"]:
            sys.exit(answer["errorMessage"])
    (output,) = answer["outputParameters"].values()
    first, *warm = times
    p99 = statistics.quantiles(warm, n=100)[98]
    print(f"{first:.1f}\t{statistics.median(warm):.2f}\t{p99:.2f}\t{json.dumps(output)}")


async def crowd(url: str, token: str, inputs: str) -> None:
    target = urllib.parse.urlsplit(url)
    body = inputs.encode()
    lines = (
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.netloc}",
        f"Content-Length: {len(body)}",
        f"Authorization: Bearer {token}",
        "Connection: close",
    )
    request = "\r\n".join((*lines, "", "")).encode() + body
    opened = [await asyncio.open_connection(target.hostname, target.port) for _ in range(CROWD)]

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        answer = await reader.read()
        writer.close()
        return answer

    for _, writer in opened:
        writer.write(request)
    answers = await asyncio.gather(*(one(*pair) for pair in opened))
    statuses = [answer.split(b" ", 2)[1].decode() for answer in answers]
    refused = next((a.partition(b"\r\n\r\n")[2].decode() for a in answers if a.startswith(b"HTTP/1.1 429")), "")
    print(f"{CROWD}\t{statuses.count('200')}\t{statuses.count('429')}\t{refused}")


def start() -> None:
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, REVISION], check=True, stdout=subprocess.PIPE, text=True)
    took = (time.perf_counter() - begin) * 1000
    (answer,) = (line.removeprefix("answer ") for line in done.stdout.splitlines() if line.startswith("answer "))
    print(f"{took:.0f}\t{answer}")


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "crowd":
        asyncio.run(crowd(*arguments))
    else:
        {"login": login, "call": call, "start": start}[command](*arguments)
