"""Deploying web services: `DeployClient`, and what a server's implementation derives from."""

from sessionpools_azureml.deploy.deploy_client import DeployClient
from sessionpools_azureml.deploy.operationalization import Operationalization, ServiceDefinition

__all__ = ["DeployClient", "Operationalization", "ServiceDefinition"]
