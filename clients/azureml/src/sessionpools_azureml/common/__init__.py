"""What the parts of the client share: its configuration, and HTTP."""

from sessionpools_azureml.common.configuration import Configuration
from sessionpools_azureml.common.http_client import HttpClient, HttpException

__all__ = ["Configuration", "HttpClient", "HttpException"]
