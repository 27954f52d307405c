"""Batches: many calls of one web service that are made in the background, each exactly once, with results that stay.

Stands on `web.store`, whose exceptions it raises, and on the gateway, to which it posts. Knows no HTTP server, no
Kubernetes and no roles: an `owner` is a user's name, and None stands for who may see everybody's batches.
"""
