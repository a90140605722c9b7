"""Packages that tests make themselves."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping


def wheel(name: str, version: str, files: Mapping[str, str]) -> tuple[str, bytes]:
    """Make a wheel of these files, and return its name and its content."""
    info = f"{name}-{version}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    digests = {path: hashlib.sha256(text.encode()).digest() for path, text in texts.items()}
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}," for path, digest in digests.items()
    ]
    texts[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as stream:
        for path, text in texts.items():
            stream.writestr(zipfile.ZipInfo(path), text)
    return f"{name}-{version}-py3-none-any.whl", content.getvalue()
