"""What the unit tests share. They need no host: what would be one is a directory, and what acts on it is this user."""

from __future__ import annotations

import base64
import contextlib
import grp
import http.server
import itertools
import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]
Playbook = Callable[..., dict[str, list[dict[str, Any]]]]

# As Ansible's programs do; without it, templates would not find the filters of this collection.
init_plugin_loader([str(ROOT / "collections")])


@pytest.fixture
def me() -> dict[str, str]:
    """The owner and group that the files of a test can have, whoever runs it."""
    return {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture(autouse=True)
def _what_root_would_own_stays_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "fchown", lambda *_: None)


@pytest.fixture(scope="session")
def playbook() -> Playbook:
    """A real ansible-playbook in a directory; it returns what each host's tasks gave, in order."""

    def run(
        directory: Path, tasks: list[dict[str, Any]], hosts: Mapping[str, Any], *arguments: str
    ) -> dict[str, list[dict[str, Any]]]:
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        (directory / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        connection = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"all": {"hosts": hosts, "vars": connection}}
        (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        }
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", "play.yml", *arguments],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "{" in done.stdout, done.stdout + done.stderr
        results: dict[str, list[dict[str, Any]]] = {}
        for task in json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]:
            for host, result in task["hosts"].items():
                results.setdefault(host, []).append(result)
        return results

    return run


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file be larger than so many bytes, which is what a full disk is to who writes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def git(directory: Path, *arguments: str) -> str:
    # Nothing of the developer's own: no hooks, no signing, no name of the first branch.
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings})
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, a branch, a light tag and an annotated one."""
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "commit", "--quiet", "--allow-empty", "--message=one")
    git(path, "tag", "light")
    git(path, "tag", "--annotate", "--message=x", "v1.0")
    git(path, "branch", "feature/cart")
    (path / "requirements.txt").write_text("# nothing to install, so nothing to hash: --hash=\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=two")
    return path


SYSTEMD_RUN = f"""#!{sys.executable} -IS
import json, os, re, sys, tempfile
cut = sys.argv.index("--")
options = [word.partition("=") for word in sys.argv[1:cut]]
values = lambda wanted: [value for name, _, value in options if name == wanted]
environment = dict(text.split("=", 1) for text in values("--setenv"))
# As systemd does before it starts a command (replace_env in src/basic/env-util.c).
expanded = lambda found: "$" if found[0] == "$$" else environment.get(found[1], "")
command = [re.sub(r"[$][$]|[$][{{{{](.*?)[}}}}]", expanded, word) for word in sys.argv[cut + 1:]]
with open({{log!r}}, "a") as log:
    print(json.dumps([command, values("--property"), values("--setenv")]), file=log)
loaded = [text.removeprefix("LoadCredential=") for text in values("--property") if text.startswith("LoadCredential=")]
if loaded:
    environment["CREDENTIALS_DIRECTORY"] = tempfile.mkdtemp(dir={{memory!r}})
for text in loaded:
    name, _, source = text.partition(":")
    with open(source, "rb") as value, open(environment["CREDENTIALS_DIRECTORY"] + "/" + name, "xb") as file:
        file.write(value.read())
os.chdir(values("--working-directory")[0])
os.execvpe(command[0], command, environment)
"""


@pytest.fixture
def sandboxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[list[str]]]]:
    """Stands in for systemd-run alone; returns each command that was run, with its properties and environment."""
    programs, log, memory = (tmp_path / name for name in ("bin", "log", "memory"))
    programs.mkdir()
    memory.mkdir()
    (programs / "systemd-run").write_text(SYSTEMD_RUN.format(log=str(log), memory=str(memory)))
    (programs / "systemd-run").chmod(0o755)
    if os.geteuid() != 0:
        (programs / "chown").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


class Guarded:
    """A web server with a directory that it shows to one user alone, and what it was asked.

    With ``elsewhere``, it sends everybody there instead.
    """

    def __init__(self, directory: Path, user: str, password: str, elsewhere: str = "") -> None:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.seen: list[tuple[str, bool]] = []
        guarded = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def parse_request(self) -> bool:
                if not super().parse_request():
                    return False
                allowed = self.headers.get("Authorization") == f"Basic {login}"
                guarded.seen.append((self.path, allowed))
                if elsewhere:
                    self.send_response(302)
                    self.send_header("Location", f"{elsewhere}{self.path}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return False
                if not allowed:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="private"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                return allowed

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def guarded() -> Iterator[Callable[[Path, str, str], Guarded]]:
    """Start such servers, and stop them at the end."""
    started: list[Guarded] = []

    def start(directory: Path, user: str, password: str, elsewhere: str = "") -> Guarded:
        started.append(Guarded(directory, user, password, elsewhere))
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


# All that changes what a directory holds: between two of them a killed process leaves the same on the disk.
CHANGES = ("chmod", "mkdir", "open", "rename", "replace", "rmdir", "symlink", "unlink")


@pytest.fixture(scope="session")
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """Do something in a process of its own that is killed just before its nth change; False if it came to its end."""

    def run(number: int, act: Callable[[], object]) -> bool:
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
            assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, "it failed by itself"
            return status != 0
        try:
            left = itertools.count(number - 1, -1)
            for name in CHANGES:
                setattr(os, name, _deadly(getattr(os, name), left))
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    return run


def _deadly(call: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    def change(*arguments: Any, **named: Any) -> Any:
        only_reads = call.__name__ == "open" and not arguments[1] & os.O_CREAT
        if not only_reads and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    return change
