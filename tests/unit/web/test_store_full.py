"""The volume is full: what needs space says so and leaves nothing behind, all else goes on, and so does it with space.

The volume is a real file system of 8 MiB, which a process mounts in a namespace of its own.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.tools import ROOT
from support.web import SCRIPT, WebWorld, error_of

MIB = 1 << 20


def test_a_full_volume_refuses_what_is_large_and_takes_it_when_there_is_space_again(tmp_path: Path) -> None:
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=8m none {tmp_path}"
    if subprocess.run([*namespaces, "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system in a namespace of their own")
    done = subprocess.run(
        [*namespaces, "sh", "-c", f'{mount} && exec "$0" -m unit.web.test_store_full {tmp_path}', sys.executable],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def scenario(volume: Path) -> None:
    def native(size: int) -> dict[str, object]:
        files = {"service.py": b"def answer(): return 1", "noise": os.urandom(size)}
        return {
            "entrypoint": "service:answer",
            "files": {name: base64.b64encode(content).decode() for name, content in files.items()},
        }

    def kept() -> list[Path]:
        """Files of content, and those that are being written."""
        store = volume / "store"
        return sorted(path for name in ("bundles", "blobs", ".staging") for path in (store / name).rglob("*"))

    async with WebWorld(volume) as world:
        admin = world.client()
        assert (await admin.post("/services/Small/v1", json=SCRIPT)).status_code == 201
        session = (await admin.post("/sessions", json={})).json()["sessionId"]
        before = kept()
        large = native(9 * MIB)
        for answer in (
            await admin.post("/services/Large/v1", json=large),
            await admin.put(f"/sessions/{session}/workspace/model", content=os.urandom(9 * MIB)),
        ):
            assert (answer.status_code, answer.json()["exceptionType"]) == (503, "StoreFull"), answer.text
            assert int(answer.headers["retry-after"]) > 0
            message = error_of(answer)
            assert f"store file://{volume}/store: can't write" in message
            assert "No space left on device: delete services" in message
        assert kept() == before
        assert [service["spec"]["name"] for service in world.services()] == ["Small"]

        # Filled by others to the last byte but what is kept free for small writes.
        with (volume / "others").open("wb") as file:
            free = os.statvfs(volume)
            file.write(bytes(free.f_bavail * free.f_frsize - 400_000))
        assert (await admin.post("/services/Middle/v1", json=native(200_000))).status_code == 503
        assert (await admin.post("/sessions", json={})).status_code == 201
        assert (await admin.patch("/services/Small/v1", json={"code": "answer = x"})).status_code == 200
        assert await world.parts.collector.turn()
        assert (await admin.delete("/services/Small/v1")).status_code == 200

        (volume / "others").unlink()
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=64m", str(volume)], check=True)
        assert (await admin.post("/services/Large/v1", json=large)).status_code == 201
        answer = await admin.put(f"/sessions/{session}/workspace/model", content=os.urandom(9 * MIB))
        assert answer.status_code == 200


if __name__ == "__main__":
    asyncio.run(scenario(Path(sys.argv[1])))
