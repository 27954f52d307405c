"""The stores."""

from support.stores import s3, store, store_url, volume

__all__ = ["s3", "store", "store_url", "volume"]
