"""What a task wants of an app, as the modules release and release_plan take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.slipway.asgi.plugins.module_utils.environment import environment_file
from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, Fingerprint
from ansible_collections.slipway.asgi.plugins.module_utils.probes import Probe
from ansible_collections.slipway.asgi.plugins.module_utils.releases import Inputs
from ansible_collections.slipway.asgi.plugins.module_utils.slots import SECRETS

# Only root may read these; systemd hands them to the app.
SECRET_MODE = 0o600

APP_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "release": {"type": "str"},
    "source": {
        "type": "dict",
        "options": {
            "path": {"type": "str"},
            "digest": {"type": "str"},
            "git": {"type": "str"},
            "version": {"type": "str", "default": "HEAD"},
            "called": {"type": "str"},
            "username": {"type": "str"},
            "host_key": {"type": "str"},
        },
    },
    "archive": {"type": "path"},
    "python": {"type": "str", "default": "system"},
    "server": {"type": "str", "default": "gunicorn"},
    "extras": {"type": "list", "elements": "str", "default": []},
    "groups": {"type": "list", "elements": "str", "default": []},
    "unlocked": {"type": "bool", "default": False},
    "index": {"type": "dict", "options": {"url": {"type": "str", "required": True}, "username": {"type": "str"}}},
    "packages": {"type": "list", "elements": "str", "default": []},
    "sandbox": {"type": "dict", "options": {"writable": {"type": "list", "elements": "path", "default": []}}},
    "build": {"type": "str", "default": ""},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
        },
    },
    "migrate": {"type": "bool", "default": False},
    "domains": {"type": "list", "elements": "str", "default": []},
    "ready_path": {"type": "str", "default": "/"},
    "ready_seconds": {"type": "int", "default": 60},
    "keep_releases": {"type": "int", "default": 5},
}
FRONT_OPTIONS: dict[str, Any] = {
    "user": {"type": "str", "default": "www-data"},
    "port": {"type": "int", "default": 443},
}


def inputs_of(app: Mapping[str, Any], requirements: str) -> Inputs:
    """What the app's release is made of, with these requirements of its server."""
    return Inputs(
        app["source"],
        app["python"],
        app["build"],
        app["server"],
        requirements,
        app["extras"],
        app["groups"],
        app["unlocked"],
        app["packages"],
        app["index"] or {},
    )


def probe_of(app: Mapping[str, Any]) -> Probe:
    """How the app is asked whether it is ready."""
    return Probe(app["ready_path"], app["domains"][0], app["ready_seconds"])


def secret_files(app: Mapping[str, Any]) -> dict[str, bytes]:
    """What only root may read of a slot, by its path in the configuration, from the values of an app's secrets.

    Each secret of the environment has a file, so that a rollback finds those that it knows, as they are today.
    """
    files = {name: value.encode() for name, value in app["secrets"].items()}
    for name, value in app["secret_environment"].items():
        files[f"{name}.env"] = environment_file({name: value}).encode()
    return {f"{SECRETS}/{name}": content for name, content in files.items()}


def files_of(app: Mapping[str, Any]) -> list[File]:
    """The configuration of the app's slot, with the values of its secrets."""
    secrets = [File(path, content, SECRET_MODE) for path, content in secret_files(app).items()]
    return [*map(File.of, app["files"]), *secrets]


def fingerprints_of(app: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Fingerprint]:
    """The same as fingerprints, from the SHA-256 of each secret file."""
    files = {file.path: Fingerprint.of(file) for file in map(File.of, app["files"])}
    return files | {path: Fingerprint(value, SECRET_MODE, 0, 0) for path, value in secrets.items()}
