"""Static files under names that hold their content's hash: `python -m guestbook.assets`.

A page of the release before then finds its own assets after a deploy, and caches may keep them for
ever. Without this step, as in development, the plain names are used.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "static"
BUILT = "dist"
MANIFEST = "manifest.json"


def build(static: Path = STATIC) -> dict[str, str]:
    """Write hashed copies and the manifest that names them; return the manifest."""
    built = static / BUILT
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    manifest = {}
    for file in sorted(path for path in static.iterdir() if path.is_file()):
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:12]
        name = f"{file.stem}.{digest}{file.suffix}"
        (built / name).write_bytes(content)
        manifest[file.name] = f"{BUILT}/{name}"
    (built / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def asset_url(static: Path = STATIC) -> Callable[[str], str]:
    """Return a function that turns a file's name into its address."""
    file = static / BUILT / MANIFEST
    manifest: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return lambda name: f"/static/{manifest.get(name, name)}"


if __name__ == "__main__":
    for plain, hashed in build().items():
        print(f"{plain} -> {hashed}")
