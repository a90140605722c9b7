"""Who may issue the certificate of an app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SELF_SIGNED = "self-signed"
# The CAs that have a name of their own; any other is written as its directory's address.
DIRECTORIES = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}


def is_issued(app: Mapping[str, Any]) -> bool:
    """Whether an app's certificate comes from a CA by ACME."""
    return (app.get("certificate") or {}).get("issuer") not in (None, SELF_SIGNED)
