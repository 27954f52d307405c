"""The Python client of Microsoft Machine Learning Server 9.3, for Session Pools, under its own import lines:

    from azureml.deploy import DeployClient
    from azureml.deploy.server import MLServer

Where azureml-model-management-sdk is not installed, `azureml.deploy` and `azureml.common` are this package's (see
_sessionpools_azureml_finder); where it is, they stay Microsoft's, and `sessionpools_azureml.deploy.server.MLServer`
works in Microsoft's DeployClient too. Written from its documentation and published tests: none of its code is here.

Requests go through the flows of sessionpools.client, so there are timeouts, repetitions where they are safe, and tokens
that are renewed. numpy and pandas are imported when a value needs them.
"""
