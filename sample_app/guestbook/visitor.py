"""A signed cookie: whoever wrote an entry is known again, and nobody can pose as another."""

import hmac
import secrets
from typing import Annotated

from fastapi import Depends, Response
from fastapi.requests import HTTPConnection

from guestbook.settings import settings

COOKIE = "visitor"
YEAR = 365 * 24 * 3600


def _sign(purpose: str, identifier: str) -> str:
    key = settings.session_key.get_secret_value().encode()
    return hmac.digest(key, f"{purpose}:{identifier}".encode(), "sha256").hex()


def public_tag(identifier: str) -> str:
    """Return what the world may know of a visitor: stable, and no way back to the cookie."""
    return _sign("tag", identifier)[:8]


def recognise(connection: HTTPConnection) -> str | None:
    """Return who the connection's cookie names, if this app signed it."""
    identifier, _, signature = connection.cookies.get(COOKIE, "").partition(".")
    if identifier and hmac.compare_digest(signature.encode(), _sign("cookie", identifier).encode()):
        return identifier
    return None


def visitor(connection: HTTPConnection, response: Response) -> str:
    """Return the visitor's public tag; a new visitor gets a cookie."""
    identifier = recognise(connection)
    if identifier is None:
        identifier = secrets.token_hex(16)
        response.set_cookie(
            COOKIE,
            f"{identifier}.{_sign('cookie', identifier)}",
            max_age=YEAR,
            httponly=True,
            samesite="lax",
            secure=connection.url.scheme == "https",
        )
    return public_tag(identifier)


Visitor = Annotated[str, Depends(visitor)]
