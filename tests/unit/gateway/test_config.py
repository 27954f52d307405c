"""The files that HAProxy starts from, held against the real HAProxy."""

from __future__ import annotations

import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from sessionpools.gateway.backends import Allocation, allocate
from sessionpools.gateway.config import Settings, endpoint, map_value, read_allocation, render
from sessionpools.gateway.model import OpenSlot
from support.gateway import route
from support.runtime_pod import OPERATOR
from unit.gateway.conftest import Start

SLOTS = (OpenSlot("worker-1:pod-a:0", "10.0.0.1", 9000, 1), OpenSlot("worker.example:pod-b:0", "fd00::2", 9000, 2))
ROUTES = (
    route("Full", SLOTS),
    route("Short", queue_seconds=1, request_seconds=5, pool_uid="uid-2"),
    route("Orphan", pool="", pool_uid="", queue_length=0, queue_seconds=0, request_seconds=0),
)


def test_haproxy_takes_the_configuration_without_a_warning(gateway: Start) -> None:
    result = gateway(*ROUTES).check()
    assert (result.returncode, result.stdout + result.stderr) == (0, "Configuration file is valid\n")


def test_haproxy_takes_the_configuration_of_two_hundred_pools(gateway: Start) -> None:
    many = (route(f"S{n}", (OpenSlot(f"w:p{n}:0", "10.0.0.1", 9000, 1),), pool_uid=f"uid-{n}") for n in range(200))
    result = gateway(*many).check()
    assert (result.returncode, result.stdout + result.stderr) == (0, "Configuration file is valid\n")


def test_with_a_certificate_it_speaks_tls(gateway: Start, tmp_path: Path) -> None:
    pem = tmp_path / "gateway.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=gateway -days 1 -keyout key -out cert"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    pem.write_text((tmp_path / "cert").read_text() + (tmp_path / "key").read_text())
    one = gateway(*ROUTES, tls_certificate=str(pem)).start()
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{one.port}", "-quiet"],
        input=b"GET / HTTP/1.0\r\n\r\n",
        capture_output=True,
        timeout=30,
    )
    assert b"HTTP/1.1 404" in shown.stdout, shown.stderr


def test_the_allocation_can_be_read_back() -> None:
    allocation = allocate(Allocation(), ROUTES)
    assert read_allocation(render(Settings(Path("/run/x")), allocation, ROUTES).haproxy_cfg) == allocation


def test_a_configuration_of_others_is_not_read() -> None:
    with pytest.raises(ValueError, match="not written by this program"):
        read_allocation("backend web\n    server a 10.0.0.1:80\n")


def test_the_same_routes_in_another_order_make_the_same_files() -> None:
    allocation = allocate(Allocation(), ROUTES)
    settings = Settings(Path("/run/x"))
    assert render(settings, allocation, ROUTES) == render(settings, allocation, ROUTES[::-1])


def test_a_map_value_has_all_that_a_call_needs() -> None:
    assert map_value(ROUTES[0], "q10-1") == "q10-1|100|10|60000|pool-uid|demo/full"


def test_a_service_without_a_pool_is_in_the_map_without_a_backend() -> None:
    files = render(Settings(Path("/run/x")), allocate(Allocation(), ROUTES), ROUTES)
    assert f"{ROUTES[2].key} -|0|0|0||\n" in files.pools_map


def test_no_name_can_break_the_map() -> None:
    files = render(Settings(Path("/run/x")), Allocation(), [replace(ROUTES[2], service="a b|#\\\u2028é")])
    (line,) = files.pools_map.splitlines()
    assert line.isascii()
    assert len(line.split(" ")) == 2


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert [endpoint(slot) for slot in SLOTS] == ["10.0.0.1:9000", "[fd00::2]:9000"]


@pytest.mark.parametrize("directory", ["/run/a b", "/run/a'b", "/run/" + "x" * 80])
def test_a_directory_that_haproxy_could_not_use_is_refused(directory: str) -> None:
    with pytest.raises(ValueError, match="HAProxy wants a path"):
        Settings(Path(directory))


def test_wheels_hold_the_lua_file() -> None:
    settings = tomllib.loads((OPERATOR.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert all((OPERATOR / "sessionpools" / "gateway" / name).exists() for name in settings["sessionpools.gateway"])
    assert "hold.lua" in settings["sessionpools.gateway"]
