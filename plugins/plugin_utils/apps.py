"""From what a user writes about apps to what each role is told: merged, completed and checked, all in one go."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import ipaddress
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.vault import AnsibleVaultError

from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed
from ansible_collections.slipway.asgi.plugins.module_utils.releases import basis_of
from ansible_collections.slipway.asgi.plugins.plugin_utils import kinds
from ansible_collections.slipway.asgi.plugins.plugin_utils.issuers import is_issued

Options = dict[str, dict[str, Any]]
Steps = tuple[str | int, ...]

# The list of apps that each role takes, by the role's name.
VIEWS = {"app": "app_apps", "certificates": "certificates_apps", "nginx": "nginx_sites"}
# What stands on top of a lower layer takes these away from it, since it is another way to the same thing.
_REPLACES: dict[str, dict[str, set[str]]] = {
    "source": {
        "path": {"git", "version", "key", "token", "username", "host_key"},
        "git": {"path"},
        "key": {"token", "username"},
        "token": {"key", "host_key"},
    },
    "certificate": {
        "fullchain": {"issuer", "email", "key_type", "profile", "precheck", "dns", "eab"},
        "issuer": {"fullchain", "privkey"},
    },
}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str, int),
    "int": (int, str),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
    "path": (str,),
}
# What asks nothing of a server.
_NOTHING: tuple[Any, ...] = (None, "auto", False, 0, "0", [])
_WANTED = {
    "str": "a text",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "path": "a text",
}


class Mistakes(Exception):
    """Everything that is wrong with a user's variables; ``messages`` holds one line for each."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


@dataclasses.dataclass(frozen=True)
class Layer:
    """One place that says something of an app.

    Attributes:
        steps: the variable and the keys that lead there, such as ``("slipway_apps", "shop")``.
        values: what stands there, not templated.
    """

    steps: Steps
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Context:
    """What resolving needs from Ansible.

    Attributes:
        template: renders a value; raises where a variable in it is not defined.
        origin: says where a value was written, such as ``group_vars/all/apps.yml:12``, or "".
        written: says how a whole number was written, such as ``0123``, or "".
        base: the directory that a relative path of the controller starts from.
    """

    template: Callable[[Any], Any]
    origin: Callable[[Any], str]
    written: Callable[[int], str]
    base: Path


def load_specs(roles: Path) -> dict[str, Options]:
    """Read what each role wants to know of an app from its argument_specs.

    Args:
        roles: the collection's ``roles`` directory.

    Returns:
        The options of an app, by role.
    """
    return {role: _options(roles / role)[variable]["options"] for role, variable in VIEWS.items()}


def load_variables(roles: Path) -> Options:
    """Read what an inventory can say beside its apps: the variables of all roles, and those of the playbooks.

    Args:
        roles: the collection's ``roles`` directory.

    Returns:
        The options, by the names of the variables.
    """
    options: Options = {}
    for role in sorted(path.parent.parent for path in roles.glob("*/meta/argument_specs.yml")):
        options.update(_options(role))
    for variable in VIEWS.values():
        del options[variable]
    shared = {
        "slipway_prometheus": "nginx_prometheus",
        "slipway_public_port": "nginx_public_port",
        "slipway_tls_profile": "nginx_tls_profile",
    }
    return {**options, **{name: options[meant] for name, meant in shared.items()}, "slipway_serial": {"type": "raw"}}


@functools.cache
def _options(role: Path) -> Options:
    text = (role / "meta" / "argument_specs.yml").read_text()
    found: Options = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return found


@functools.cache
def lacks(server: str) -> list[str]:
    """The options of an app that a server knows nothing of, as the role's description of it says."""
    variables = Path(__file__).resolve().parents[2] / "roles" / "app" / "vars" / "main.yml"
    found: list[str] = yaml.safe_load(variables.read_text())["__app_servers"].get(server, {}).get("lacks", [])
    return found


def resolve(specs: Mapping[str, Options], variables: Mapping[str, Any], context: Context) -> dict[str, list[Any]]:
    """Merge, complete and check the apps of one host.

    Args:
        specs: the options of an app, by role, from :func:`load_specs`.
        variables: the host's variables, not templated.
        context: what it takes to template values and to name their origin.

    Returns:
        For each role, the list of apps with the keys that its own spec names. In place of each secret, which is an
        option with ``no_log``, or each value of one that is a mapping, stands a reference: the variable and the keys
        that lead to it, joined by dots.

    Raises:
        Mistakes: with all that is wrong, not only the first.
    """
    options: Options = {}
    for spec in specs.values():
        options.update(spec)
    options.pop("name", None)
    mistakes: list[str] = []
    resolved = []
    for name, layers in _layers(variables, context, mistakes).items():
        app = _App(name, layers, options, context)
        values = app.resolve()
        mistakes += app.mistakes
        if values is not None:
            resolved.append({"name": name, **values})
    mistakes += _conflicts(resolved)
    if mistakes:
        raise Mistakes(mistakes)
    return {role: [{key: app[key] for key in spec if key in app} for app in resolved] for role, spec in specs.items()}


def check(options: Options, variables: Mapping[str, Any], context: Context) -> list[str]:
    """What is wrong with the variables beside the apps, which roles would find only when others have done their work.

    Args:
        options: the options of these variables, from :func:`load_variables`.
        variables: the host's variables, not templated.
        context: what it takes to template values and to name their origin.

    Returns:
        One line for each mistake.
    """
    given = {name: variables[name] for name in options if name in variables}
    found = _Values([Layer((), given)], {name: options[name] for name in given}, kinds.VARIABLES, context)
    values = found.render(given)
    found.check_types(values)
    found.check_kinds(found.good(values))
    if not found.mistakes:
        found.validated(values)
    return found.mistakes


def _layers(variables: Mapping[str, Any], context: Context, mistakes: list[str]) -> dict[str, list[Layer]]:
    """The layers of each app, lowest first."""

    def mapping(value: Any, label: str) -> Mapping[str, Any]:
        if isinstance(value, str):
            try:
                value = context.template(value)
            except Exception as error:  # whatever a template of the user's raises is the user's to read
                mistakes.append(
                    f"{label} is {_show(value)}: it cannot be rendered: {error}{_at(context.origin(value))}"
                )
                return {}
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            mistakes.append(f"{label} is {_show(value)}: a mapping is needed{_at(context.origin(value))}")
            return {}
        return value

    defaults = mapping(variables.get("slipway_app_defaults"), "slipway_app_defaults")
    apps = mapping(variables.get("slipway_apps"), "slipway_apps")
    overrides = sorted(name for name in variables if name.startswith("slipway_app_overrides"))
    layers: dict[str, list[Layer]] = {}
    for name, values in apps.items():
        try:
            kinds.app_name(name)
        except ValueError as error:
            mistakes.append(f"slipway_apps has the app {_show(name)}: {error}{_at(context.origin(name))}")
            continue
        layers[str(name)] = [
            Layer(("slipway_app_defaults",), defaults),
            Layer(("slipway_apps", str(name)), mapping(values, f"slipway_apps.{name}")),
        ]
    for variable in overrides:
        for name, values in mapping(variables[variable], variable).items():
            if name in layers:
                layers[name].append(Layer((variable, str(name)), mapping(values, f"{variable}.{name}")))
            elif name not in apps:
                known = ", ".join(layers) or "none"
                mistakes.append(
                    f"{variable} names the app {_show(name)}, which slipway_apps does not have; it has: {known}"
                    f"{_at(context.origin(name))}"
                )
    return layers


class _Values:
    """Values on their way from what a user wrote to what roles are told, and what is wrong with them."""

    def __init__(
        self, layers: list[Layer], options: Options, places: Mapping[str, kinds.Kind], context: Context
    ) -> None:
        self.layers = layers
        self.options = options
        self.places = places
        self.context = context
        self.mistakes: list[str] = []
        self.wrong: set[str | int] = set()

    def render(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those values that can be rendered and that a file can hold as they were written."""
        rendered: dict[str, Any] = {}
        for key in [key for key in values if key in self.options]:
            try:
                rendered[key] = _plain(self.context.template(values[key]))
            except Exception as error:  # whatever a template of the user's raises is the user's to read
                show = not _holds_secrets(self.options[key])
                self._mistake((key,), values[key], f"it cannot be rendered: {error}", show=show)
        for steps, value in _leaves(rendered):
            try:
                kinds.plain(value, self.context.written(value) if type(value) is not bool else "")
            except ValueError as error:
                self._mistake(steps, value, str(error), show=not _holds_secrets(_option(self.options, steps)))
        return self.good(rendered)

    def validated(self, values: Mapping[str, Any], label: str = "") -> dict[str, Any]:
        """The values with the defaults of the options, by Ansible's own rules, where nothing is wrong."""
        result = ArgumentSpecValidator(self.options).validate(values)
        self.mistakes += [f"{label}{message}" for message in result.error_messages]
        return dict(result.validated_parameters)

    def good(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What is wrong already is not looked at again, everything else is: all mistakes come at once."""
        return {key: value for key, value in values.items() if key not in self.wrong}

    def check_types(self, values: Mapping[str, Any], options: Options | None = None, steps: Steps = ()) -> None:
        """Look whether each value is of its option's type."""
        options = self.options if options is None else options
        for key, value in values.items():
            if key not in options:
                continue
            option = options[key]
            kind = option.get("type", "str")
            if kind in _TYPES and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool")):
                hint = kinds.read_by_yaml(value) if kind == "str" else ""
                wanted = hint or f"{_WANTED[kind]} is needed"
                if kind == "bool" and isinstance(value, str) and not steps:
                    wanted += f""" without quotes, and on the command line -e '{{"{key}": true}}'"""
                self._mistake((*steps, key), value, wanted, show=not _holds_secrets(option))
            elif kind == "int" and isinstance(value, str) and not value.isdigit():
                self._mistake((*steps, key), value, "a whole number is needed")
            elif kind == "list" and option.get("elements") in ("str", "path"):
                for index, element in enumerate(value):
                    if not isinstance(element, (str, int)) or isinstance(element, bool):
                        wanted = kinds.read_by_yaml(element) or "a text is needed"
                        self._mistake((*steps, key, index), element, wanted)
            elif "options" in option:
                self.check_types(value, option["options"], (*steps, key))

    def check_kinds(self, values: Mapping[str, Any]) -> None:
        """Look whether each value is what its place wants beyond that."""
        for place, kind in self.places.items():
            for steps, value in _at_place(values, place):
                if _is_secret(self.options, steps):
                    continue
                try:
                    kind(value)
                except ValueError as error:
                    self._mistake(steps, value, str(error), show=not isinstance(error, kinds.Unshown))

    def _layer(self, steps: Steps) -> Layer:
        """The highest layer that says something at these steps."""
        for layer in reversed(self.layers):
            if _find(layer.values, steps)[0]:
                return layer
        # An app's own, or the only one there is.
        return self.layers[:2][-1]

    def _mistake(self, steps: Steps, value: Any, allowed: str, show: bool = True) -> None:
        self.wrong.add(steps[0])
        layer = self._layer(steps)
        shown = f" is {_show(value)}" if show else ""
        self.mistakes.append(
            f"{_path((*layer.steps, *steps))}{shown}: {allowed}{_at(self._origin(layer.values, steps))}"
        )

    def _origin(self, values: Mapping[str, Any], steps: Steps) -> str:
        """Where a value was written, or else its key, for booleans and the like know nothing, or else what holds it."""
        for length in range(len(steps), -1, -1):
            found, value = _find(values, steps[:length])
            if found and (origin := self.context.origin(value)):
                return origin
            holder = _find(values, steps[: length - 1])[1] if length else None
            keys = [key for key in holder if key == steps[length - 1]] if isinstance(holder, Mapping) else []
            if keys and (origin := self.context.origin(keys[0])):
                return origin
        return ""


class _App(_Values):
    """One app on its way from layers to values."""

    def __init__(self, name: str, layers: list[Layer], options: Options, context: Context) -> None:
        super().__init__(layers, options, kinds.KINDS, context)
        self.name = name
        # How many bytes of secrets each option holds.
        self.secrets: Counter[str | int] = Counter()

    def resolve(self) -> dict[str, Any] | None:
        self.layers = [Layer(layer.steps, self._rendered_mappings(layer)) for layer in self.layers]
        merged = self._merge()
        self._unknown(merged, self.options, ())
        merged = self._with_references(merged, self.options, ())
        for option, size in self.secrets.items():
            if size > kinds.LARGEST_SECRETS:
                limit = f"all together may have {kinds.LARGEST_SECRETS:,} bytes, and these have {size:,}"
                self._mistake((option,), None, limit, show=False)
        values = self.render(merged)
        self.check_types(values)
        self._missing(merged, self.options, ())
        self.check_kinds(self.good(values))
        self._check_paths(self.good(values))
        if self.mistakes:
            return None
        values = self.validated(values, f"slipway_apps.{self.name}: ")
        return None if self.mistakes else values

    def _rendered_mappings(self, layer: Layer) -> Mapping[str, Any]:
        """A layer in which no template stands for a whole mapping, so that each can be merged key by key."""
        rendered: dict[str, Any] = {}
        for key, value in layer.values.items():
            if isinstance(value, str) and self.options.get(key, {}).get("type") == "dict":
                try:
                    rendered[key] = self.context.template(value)
                except Exception as error:  # whatever a template of the user's raises is the user's to read
                    self._mistake((key,), value, f"it cannot be rendered: {error}")
                    rendered[key] = {}
        # As it is where it can be: a copy does not know where it was written.
        return {**layer.values, **rendered} if rendered else layer.values

    def _merge(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for layer in self.layers:
            for option, replaces in _REPLACES.items():
                low, high = merged.get(option), layer.values.get(option)
                if isinstance(low, Mapping) and isinstance(high, Mapping):
                    replaced = set().union(*(replaces.get(key, set()) for key in high))
                    merged[option] = {key: value for key, value in low.items() if key not in replaced}
            merged = _merge(merged, layer.values)
        return merged

    def _with_references(self, values: Mapping[str, Any], options: Options, steps: Steps) -> dict[str, Any]:
        """The same with a reference in place of each secret; its value is looked at and let go."""
        found = dict(values)
        for key in [key for key in values if key in options]:
            option, value, place = options[key], values[key], (*steps, key)
            if option.get("no_log") and option.get("type") == "dict":
                if isinstance(value, Mapping):
                    found[key] = {name: self._reference((*place, name), value[name]) for name in value}
                else:
                    self._mistake(place, value, "a mapping of names and values is needed", show=False)
                    found[key] = {}
            elif option.get("no_log"):
                found[key] = self._reference(place, value)
            elif "options" in option and isinstance(value, Mapping):
                found[key] = self._with_references(value, option["options"], place)
        return found

    def _reference(self, steps: Steps, value: Any) -> str:
        name = _path(steps)
        # Not as a message shows it, which shortens a name that is very long.
        reference = ".".join(map(str, (*self._layer(steps).steps, *steps)))
        try:
            rendered = self.context.template(value)
        except (AnsibleUndefinedVariable, AnsibleVaultError) as error:
            self._mistake(steps, value, f"it cannot be rendered: {error}", show=False)
            return reference
        except Exception:  # whose message may quote the value
            hint = "a text that holds {{ or {% and is no template is marked with !unsafe"
            self._mistake(steps, value, f"it cannot be rendered; {hint}", show=False)
            return reference
        try:
            mapping = _path(steps[:-1])
            if name not in kinds.KINDS:  # one of a mapping of secrets
                kinds.KINDS[f"{mapping}{{key}}"](steps[-1])
            kinds.secret_value(rendered)
            kinds.KINDS.get(name, kinds.KINDS.get(f"{mapping}{{}}", kinds.secret_value))(rendered)
            self.secrets[steps[0]] += len(rendered.encode())
        except ValueError as error:
            self._mistake(steps, value, str(error), show=False)
        return reference

    def _unknown(self, values: Any, options: Options, steps: Steps) -> None:
        for key in values:
            if key not in options:
                close = difflib.get_close_matches(str(key), list(options), 1)
                hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(sorted(options))}"
                self._mistake((*steps, key), None, f"this key is not known; {hint}", show=False)
            elif "options" in options[key] and isinstance(values[key], Mapping):
                self._unknown(values[key], options[key]["options"], (*steps, key))

    def _missing(self, values: Any, options: Options, steps: Steps) -> None:
        for key, option in options.items():
            if option.get("required") and values.get(key) is None:
                example = option.get("description", "")
                text = example if isinstance(example, str) else " ".join(example)
                self._mistake((*steps, key), None, f"this key is needed. {text}", show=False)
            elif "options" in option and isinstance(values.get(key), Mapping):
                self._missing(values[key], option["options"], (*steps, key))

    def _check_paths(self, values: dict[str, Any]) -> None:
        """Make paths of the controller absolute, and insist that they are there."""
        for key, name, is_there in (
            ("source", "path", Path.is_dir),
            ("certificate", "fullchain", Path.is_file),
            ("certificate", "privkey", Path.is_file),
        ):
            if name in values.get(key, {}):
                path = (self.context.base / values[key][name]).resolve()
                if not is_there(path):
                    what = "directory" if is_there is Path.is_dir else "file"
                    self._mistake((key, name), values[key][name], f"there is no {what} {path} on the controller")
                elif key == "source":
                    self._check_lock(path, values)
                values[key][name] = str(path)

    def _check_lock(self, source: Path, values: Mapping[str, Any]) -> None:
        """Refuse here what the host could not install, before it is sent there."""
        try:
            basis_of(source, bool(values.get("unlocked")), bool(values.get("extras") or values.get("groups")))
        except Failed as error:
            self._mistake(("source", "path"), values["source"]["path"], str(error))


def _holds_secrets(option: Mapping[str, Any]) -> bool:
    return bool(option.get("no_log")) or any(map(_holds_secrets, option.get("options", {}).values()))


def _option(options: Options, steps: Steps) -> Mapping[str, Any]:
    """The option that these steps lead to; none within a list or a mapping of the user's own."""
    option: Mapping[str, Any] = {"options": options}
    for step in steps:
        option = option.get("options", {}).get(step, {})
    return option


def _is_secret(options: Options, steps: Steps) -> bool:
    """Whether a secret stands at these steps, or did before a reference took its place."""
    return any(_option(options, steps[:length]).get("no_log") for length in range(1, len(steps) + 1))


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _conflicts(apps: list[dict[str, Any]]) -> list[str]:
    owners: dict[str, str] = {}
    mistakes = []
    for app in apps:
        for domain in app["domains"]:
            if domain in owners:
                problem = " twice: once is enough"
                if owners[domain] != app["name"]:
                    problem = f", as slipway_apps.{owners[domain]} has: a domain belongs to one app"
                mistakes.append(f"slipway_apps.{app['name']}.domains has {_show(domain)}{problem}")
            owners.setdefault(domain, app["name"])
        wildcards = [domain for domain in app["domains"] if domain.startswith("*.")]
        if wildcards and is_issued(app) and not app["certificate"].get("dns"):
            mistakes.append(
                f"slipway_apps.{app['name']}.domains has {_show(wildcards[0])}: a CA proves a wildcard in DNS only; "
                "set certificate.dns with its plugin and credentials"
            )
        mistakes += [
            f"slipway_apps.{app['name']}.environment has {_show(name)}, as secret_environment has: choose one"
            for name in sorted(set(app.get("environment", {})) & set(app.get("secret_environment", {})))
        ]
        mistakes += _twice(app)
        mistakes += [
            f"slipway_apps.{app['name']}.{option} is {_show(app[option])}: server {app['server']} cannot do that; "
            "leave it out, or choose another server (docs/servers.md)"
            for option in lacks(app.get("server", ""))
            if app.get(option) not in _NOTHING
        ]
    return mistakes


def _twice(app: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong where a path or a network of an app stands twice, or means two things."""
    label = f"slipway_apps.{app['name']}"
    static, websockets = app.get("static", {}), app.get("websocket_paths", [])
    for option, paths in (
        ("websocket_paths", websockets),
        ("private_paths", app.get("private_paths") or []),
        ("limits.paths", (app.get("limits") or {}).get("paths", {})),
    ):
        bare = [path.rstrip("/") or "/" for path in paths]
        for path in sorted({path for path in bare if bare.count(path) > 1}):
            yield f"{label}.{option} has {_show(path)} twice: once is enough"
    for option in ("private_allow", "maintenance_allow", "trusted_proxies"):
        networks = [ipaddress.ip_network(str(network)) for network in app.get(option) or []]
        for network in sorted({str(network) for network in networks if networks.count(network) > 1}):
            yield f"{label}.{option} has {_show(network)} twice, maybe in two spellings: once is enough"
    for path in sorted({f"{path.rstrip('/')}/" for path in websockets} & set(static)):
        yield f"{label}.static has {_show(path)}, as websocket_paths has: a path is either static or a WebSocket"
    for start in sorted(set(app.get("redirects", {})) - {"/"}):
        for path in sorted({*static, *websockets}):
            if start in (path, f"{path}/") or (start.endswith("/") and path.startswith(start)):
                option = "static" if path in static else "websocket_paths"
                yield f"{label}.redirects has {_show(start)}, so that nothing reaches {_show(path)} of {option}"


def _at_place(values: Mapping[str, Any], place: str) -> Iterator[tuple[Steps, Any]]:
    """The steps and values that a place of KINDS stands for, where the user gave any."""
    bare = place.removesuffix("[]").removesuffix("{key}").removesuffix("{}")
    steps: Steps = tuple(bare.split("."))
    found, value = _find(values, steps)
    if not found or value is None:
        return
    if place.endswith("[]"):
        yield from (((*steps, index), element) for index, element in enumerate(value))
    elif place.endswith("{key}"):
        yield from (((*steps, key), key) for key in value)
    elif place.endswith("{}"):
        yield from (((*steps, key), element) for key, element in value.items())
    else:
        yield steps, value


def _find(values: Any, steps: Steps) -> tuple[bool, Any]:
    for step in steps:
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return False, None
    return True, values


def _plain(value: Any) -> Any:
    """Ansible's tagged and lazy containers as plain ones, so that only values are handed on."""
    if isinstance(value, Mapping):
        return {str(key) if isinstance(key, str) else key: _plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    return value


def _leaves(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """The steps to each value that holds no others."""
    if isinstance(value, Mapping):
        for key, element in value.items():
            yield from _leaves(element, (*steps, key))
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _leaves(element, (*steps, index))
    else:
        yield steps, value


def _path(steps: Steps) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if type(step) is int else f".{_name(str(step))}"
    return text[1:]


def _name(step: str) -> str:
    return step if step.isprintable() and len(step) <= 100 else _show(step)


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
        text = text if text.isprintable() else json.dumps(value, default=str)
    except ValueError:
        return "a number of thousands of digits"  # more than Python writes
    return text if len(text) <= 100 else f"{text[:97]}..."


def _at(origin: str) -> str:
    return f" ({origin})" if origin else ""
