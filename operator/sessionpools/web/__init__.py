"""The REST API of Machine Learning Server 9.3: publish, pool, batch, log in. Deployment `session-pools-web`.

Custom resources are the only truth: what is published here is a WebService, a pool a SessionPool, and what others made
of these kinds is seen and changed here alike. Calls of web services never come here: the gateway takes them.

    routes/     a file a resource: from HTTP to one of the parts below, and back; roles are asked here
    models/     bodies and answers
    cluster     what is known of the cluster, and every change of it (web on kube)
    objects, poolrows, signatures, managed, status, swagger, usage: decisions without I/O
    publishing, pooling                                              what a route does that takes several steps
    auth/, store/, batch/                                            parts of their own, which know no HTTP

`app` puts them together, `__main__` runs them.
"""
