"""Machine Learning Server's implementation, and what its services are made of."""

from sessionpools_azureml.deploy.server.batch import Batch, BatchResponse
from sessionpools_azureml.deploy.server.encoding_type import EncodingType
from sessionpools_azureml.deploy.server.mlserver import MLServer
from sessionpools_azureml.deploy.server.service import Service, ServiceResponse
from sessionpools_azureml.deploy.server.services import WebServiceService

__all__ = ["Batch", "BatchResponse", "EncodingType", "MLServer", "Service", "ServiceResponse", "WebServiceService"]
