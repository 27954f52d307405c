"""What the web API keeps: bundles of published code, authoring sessions and snapshots, all in one object store.

Custom resources are the only truth about services and pools; here are bytes. Nothing here knows HTTP, Kubernetes or
roles: an `owner` is a user's name, and None stands for who may see everybody's. `errors` draws the exceptions.
"""
