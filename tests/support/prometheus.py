"""A real Prometheus that scrapes the gateways of the test cluster, by way of `kubectl proxy`."""

import contextlib
import json
import socket
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.error import URLError

import yaml

from support.cluster import wait_for
from support.pools import Json
from support.tools import tool


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        with contextlib.suppress(URLError, ConnectionError), urllib.request.urlopen(f"{self._url}/-/ready") as answer:
            return bool(answer.status == 200)
        return False

    def values(self, expression: str, label: str) -> dict[str, float]:
        """What an instant query finds, by the value of one label."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}") as answer:
            found: list[Json] = json.load(answer)["data"]["result"]
        return {str(series["metric"].get(label, "")): float(series["value"][1]) for series in found}


@contextlib.contextmanager
def prometheus(proxy_url: str, pods: Sequence[Json], port: int = 12801) -> Iterator[Prometheus]:
    """It scrapes /metrics of these pods each second, and has scraped each of them when this returns."""
    host = urllib.parse.urlsplit(proxy_url).netloc
    jobs = [
        {
            "job_name": pod["metadata"]["name"],
            "metrics_path": (
                f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}:{port}/proxy/metrics"
            ),
            "static_configs": [{"targets": [host]}],
        }
        for pod in pods
    ]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listen = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        scraping = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config.write_text(yaml.safe_dump({"global": scraping, "scrape_configs": jobs}))
        command = [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{listen}"], stderr=log)
        try:
            made = Prometheus(listen)
            wait_for(made.ready, 60, "Prometheus is ready")
            wait_for(lambda: len(made.values("up == 1", "job")) == len(pods), 60, "Prometheus has scraped each gateway")
            yield made
        finally:
            process.terminate()
            process.wait()
