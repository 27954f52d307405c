"""Which paths HAProxy takes, as the conditions of its rules. Pure text; used by frontend.py and webapi.py."""

from __future__ import annotations

from typing import Final

__all__ = ["BAD", "CALL", "TOO_LONG", "USAGE", "WEB_API"]

USAGE: Final = "POST /api/NAME/VERSION or POST /namespaces/NAMESPACE/api/NAME/VERSION"
CALL: Final = "{ path_reg ^(/namespaces/[^/]+)?/api/[^/]+/[^/]+$ }"
# What the REST API has beside calls. It sees no path with empty, "." or ".." segments.
WEB_API: Final = (
    r"{ path_reg '^/(?:(?:login|services|realtime-services|sessions|snapshots|computenodes|docs)(?:/.*)?"
    r"|status|health|openapi\.json|\.well-known/jwks\.json|api/[^/]+/[^/]+/(?:swagger\.json|batch(?:/.*)?))$' } "
    r"!{ path_reg -i '/(?:\.|%2e){0,2}/|/(?:\.|%2e){1,2}$' }"
)
TOO_LONG: Final = "{ path,length gt 4096 }"
_BADLY_ENCODED: Final = r"{ path_sub % } { path_reg -i '%(2f|5c|[01][0-9a-f]|7f|(?![0-9a-f]{2}))' } || { path_sub \\ }"
# Bytes that are not UTF-8. What is not allowed is looked for, as a repeated group would need stack for each character.
_NOT_UTF8: Final = (
    r"[\xc0\xc1\xf5-\xff]|[\xc2-\xdf](?![\x80-\xbf])|\xe0(?![\xa0-\xbf][\x80-\xbf])|[\xe1-\xec\xee\xef](?![\x80-\xbf]{2})"
    r"|\xed(?![\x80-\x9f][\x80-\xbf])|\xf0(?![\x90-\xbf][\x80-\xbf]{2})|[\xf1-\xf3](?![\x80-\xbf]{3})"
    r"|\xf4(?![\x80-\x8f][\x80-\xbf]{2})|(?<![\x80-\xff])[\x80-\xbf]|[\xc2-\xdf][\x80-\xbf]{2}|[\xe0-\xef][\x80-\xbf]{3}"
    r"|[\xf0-\xf4][\x80-\xbf]{4}"
)
# Why a path is bad, and the condition under which it is.
BAD: Final = (
    (
        "the path has an encoded slash, backslash or control character, or an incomplete percent encoding",
        _BADLY_ENCODED,
    ),
    ("the path is not UTF-8", f"{{ path_sub % }} {{ path,url_dec -m reg '{_NOT_UTF8}' }}"),
)
