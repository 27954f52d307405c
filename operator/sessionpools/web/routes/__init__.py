"""The paths of the REST API, a file a resource. `app` includes the routers of `ALL`."""
