"""What a deploy sends to a host for a file of variables: resolved and rendered by the collection's own actions."""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import connection_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig
from hosts import ROOT

ROLES = ROOT / "roles"
PLUGINS = "ansible_collections.slipway.asgi.plugins"
if AnsibleCollectionConfig.collection_finder is None:
    init_plugin_loader([str(ROOT / "collections")])


class Refused(Exception):
    """Variables that were refused on the controller; ``messages`` holds one line for each mistake."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


@dataclasses.dataclass(frozen=True)
class App:
    """What a host gets of an app.

    Attributes:
        name: its name.
        user: the file by which its user is made.
        files: the configuration of its slot, each with ``path``, ``mode`` and ``content`` in base64.
    """

    name: str
    user: str
    files: list[dict[str, Any]]

    def sent(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a host gets of a file of variables.

    Attributes:
        nginx: the text of each file of nginx's generation, by its path there.
        drop_ins: what is added to nginx's unit.
        apps: the apps.
    """

    nginx: dict[str, str]
    drop_ins: str
    apps: list[App]

    def sent(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return dataclasses.asdict(self)


class Variables:
    """A file of variables, as Ansible knows it at the start of a play.

    Args:
        path: the file; an app's source is relative to its directory.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.given: dict[str, Any] = DataLoader().load_from_file(str(path), trusted_as_template=True)
        except AnsibleError as error:
            raise Refused([str(error)]) from error
        self.given |= {
            "inventory_dir": str(path.parent),
            "inventory_hostname": "host",
            "ansible_facts": {"distribution": "Debian", "distribution_version": "13.1"},
        }

    def resolve(self) -> dict[str, list[dict[str, Any]]]:
        """Each role's view of the apps.

        Raises:
            Refused: something is wrong with the variables.
        """
        try:
            views: dict[str, list[dict[str, Any]]] = self._act("resolve_apps", "app", {}, {})["views"]
        except AnsibleError as error:
            _, *messages = str(error).split("\n  - ")
            raise Refused(messages or [str(error)]) from error
        return views

    def render(self, release: str) -> Configuration:
        """What the modules get that write to a host.

        Args:
            release: the host's distribution by its code name, for example ``trixie``.
        """
        views = self.resolve()
        facts = {**self.given["ansible_facts"], "distribution_release": release}
        playbook = {
            "nginx_sites": views["nginx"],
            "nginx_public_port": self.given.get("slipway_public_port", 443),
            "nginx_tls_profile": self.given.get("slipway_tls_profile", "intermediate"),
            "nginx_prometheus": self.given.get("slipway_prometheus", []),
            "ansible_facts": facts,
        }
        nginx = self._act("config_set", "nginx", _task("nginx", "configure")["slipway.asgi.config_set"], playbook)
        texts = {file["path"]: file["content"] for file in nginx["files"] if "content" in file}
        return Configuration(
            nginx={path: text for path, text in texts.items() if not path.startswith("/")},
            drop_ins="\n".join(text for path, text in texts.items() if "nginx.service.d" in path),
            apps=[self._app(app) for app in views["app"]],
        )

    def _app(self, app: Mapping[str, Any]) -> App:
        wanted = importlib.import_module(f"{PLUGINS}.module_utils.wanted")
        # The task of tasks/switch.yml, without the loop.
        arguments = {"app": app, "state": "live", "files": trust_as_template("{{ __app_files }}")}
        sent = self._act("release", "app", arguments, {})
        result = ArgumentSpecValidator(wanted.APP_OPTIONS).validate(sent["app"])
        assert not result.error_messages, result.error_messages
        secrets = {key: sent[key] for key in ("secrets", "secret_environment")}
        files = [
            {"path": file.path, "mode": file.mode, "content": base64.b64encode(file.content).decode()}
            for file in wanted.files_of(result.validated_parameters | secrets)
        ]
        user = {"path": "user", "template": "sysusers.conf.j2", "each": [app]}
        (file,) = self._act("config_set", "app", {"files": [user]}, {})["files"]
        return App(app["name"], file["content"], files)

    def _act(self, name: str, role: str, arguments: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """Run an action, and return what its module is given, or what it returns where it has none."""
        scope = {**_variables(role), **self.given, **variables}
        loader = DataLoader()
        loader.set_basedir(str(ROLES / role))
        templar = Templar(loader, scope)
        task = Task()
        task.args = templar.template(arguments)
        connection = connection_loader.get("ansible.builtin.local", PlayContext(), None)
        action = importlib.import_module(f"{PLUGINS}.action.{name}").ActionModule(
            task, connection, PlayContext(), loader, templar, None
        )
        sent: dict[str, Any] = {}

        def send(module_args: Mapping[str, Any], **_: Any) -> dict[str, Any]:
            sent.update(json.loads(json.dumps(module_args)))
            return {}

        action._execute_module = send
        result = action.run(task_vars=scope)
        return sent or dict(result)


def mistakes_of(path: Path) -> list[str]:
    """What is wrong with a file of variables, a line each; nothing where it is taken."""
    try:
        Variables(path).resolve()
    except Refused as refused:
        return refused.messages
    return []


@functools.cache
def _variables(role: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        path = ROLES / role / part / "main.yml"
        scope |= DataLoader().load_from_file(str(path), trusted_as_template=True)
    return scope


def _task(role: str, name: str) -> dict[str, Any]:
    path = ROLES / role / "tasks" / f"{name}.yml"
    task: dict[str, Any] = DataLoader().load_from_file(str(path), trusted_as_template=True)[0]
    return task
