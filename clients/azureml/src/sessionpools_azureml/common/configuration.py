"""The settings of all clients of a process."""

import tempfile
from typing import Any

__all__ = ["Configuration"]


class Configuration:
    """One object for the whole process, as Machine Learning Server's client has it: the last client's host counts.

    - host: without a slash at its end
    - verify_ssl: False trusts every certificate; a path is a file of authorities
    - cert: a client certificate: a path, or (certificate, key)
    - proxies: a URL for each scheme; without it those of the environment
    - api_key_prefix: what stands before the token
    """

    _only: "Configuration | None" = None

    def __new__(cls) -> "Configuration":
        if cls._only is None:
            only = super().__new__(cls)
            only._host = "http://localhost:12800"
            only.verify_ssl = True
            only.cert = None
            only.proxies = None
            only.api_key_prefix = "Bearer"
            only.temp_folder_path = tempfile.gettempdir()
            only.debug = False
            cls._only = only
        return cls._only

    _host: str
    verify_ssl: bool | str
    cert: Any
    proxies: dict[str, str] | None
    api_key_prefix: str
    temp_folder_path: str
    debug: bool

    @property
    def host(self) -> str:
        return self._host

    @host.setter
    def host(self, host: str) -> None:
        self._host = host.rstrip("/")
