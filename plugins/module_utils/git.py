"""Repositories: what a version of one is, and how it is fetched, with the credentials of its app and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.slipway.asgi.plugins.module_utils.generations import make_directory
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed
from ansible_collections.slipway.asgi.plugins.module_utils.sandbox import CERTIFICATES, sandboxed

# Which servers' keys were accepted when they were first seen.
KNOWN_HOSTS = Path("/etc/slipway/known_hosts")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ASK = """
timeout 60 git ls-remote "$@" || { status=$?; [ $status != 124 ] || echo "no answer within 60 seconds"; exit $status; }
"""
# Not every server hands out a commit that no reference names; those give everything.
_FETCH = """
git init --quiet src
cd src
git fetch --quiet --depth 1 "$1" "$2" 2>/dev/null || git fetch --quiet --tags "$1" "+refs/heads/*:refs/remotes/origin/*"
git checkout --quiet --detach "$2"
rm -rf .git
"""
# Neither root's configuration, keys and agent, nor the machine's.
_SSH = "ssh -F none -o BatchMode=yes -o ConnectTimeout=20 -o IdentitiesOnly=yes -o IdentityAgent=none"
_HOSTS = "-o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={} -o StrictHostKeyChecking={}"
_learning = threading.Lock()


def is_ssh(url: str) -> bool:
    """Whether a repository is reached over SSH: ssh://... or user@host:path."""
    return url.startswith("ssh://") or "://" not in url


class Repository:
    """A repository as one app may read it.

    Attributes:
        url: its address.
    """

    def __init__(
        self, app: str, source: Mapping[str, Any], credentials: Mapping[str, str], known_hosts: Path = KNOWN_HOSTS
    ) -> None:
        """Take what there is to know.

        Args:
            app: the app's name.
            source: ``git``, and for a private one ``host_key`` or ``username``.
            credentials: ``source.key`` or ``source.token``, or neither.
            known_hosts: the file that remembers servers' keys where the app names none.
        """
        self.app = app
        self.url = str(source["git"])
        self.key = credentials.get("source.key")
        self.token = credentials.get("source.token")
        self.username = source.get("username")
        self.host_key = source.get("host_key")
        self.known_hosts = known_hosts

    def commit(self, version: str) -> str:
        """The commit that a tag, a branch or HEAD names now; a full commit is one already.

        Raises:
            Failed: the repository cannot be read, or has no such version.
        """
        if _COMMIT.fullmatch(version):
            return version
        names = [f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}"]
        wanted = ["HEAD"] if version == "HEAD" else names
        # Another run may ask at the same time.
        output = self._run(_ASK, wanted, f"reading {self.url}", f"git-{os.getpid()}")
        found = {name: commit for commit, name in (line.split("\t") for line in output.splitlines() if "\t" in line)}
        for name in wanted:
            if name in found:
                return found[name]
        raise Failed(f'source.version is "{version}": {self.url} has no tag or branch of this name')

    def fetch(self, commit: str, release: Path) -> None:
        """Bring the files of a commit to ``src`` in a release."""
        self._run(_FETCH, [commit], f"fetching {commit} from {self.url}", "build", release)

    def _run(self, script: str, arguments: list[str], what: str, unit: str, directory: Path | None = None) -> str:
        environment = {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_SSL_CAINFO": CERTIFICATES,
            "GIT_TERMINAL_PROMPT": "0",
            "PATH": os.defpath,
        }
        credentials = {}
        if is_ssh(self.url):
            self._learn_host_key()
            hosts = _HOSTS.format('"$CREDENTIALS_DIRECTORY/known_hosts"', "yes")
            identity = '"$CREDENTIALS_DIRECTORY/key"' if self.key else "none"
            environment["GIT_SSH_COMMAND"] = f"{_SSH} {hosts} -o IdentityFile={identity}"
            credentials["known_hosts"] = self.host_key or self._known()
            if self.key:
                # OpenSSH insists on the last line break, which a vault may have lost.
                credentials["key"] = "\n".join([*self.key.strip().splitlines(), ""])
        elif self.token:
            # For this server alone: git follows redirects, and asks for a login wherever they lead.
            server = urlsplit(self.url)
            helper = '!login() { cat "$CREDENTIALS_DIRECTORY/login"; }; login'
            settings = {"credential.helper": "", f"credential.{server.scheme}://{server.netloc}.helper": helper}
            environment["GIT_CONFIG_COUNT"] = str(len(settings))
            for number, (name, value) in enumerate(settings.items()):
                environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
            credentials["login"] = f"username={self.username}\npassword={self.token}\n"
        try:
            return sandboxed(
                f"slipway-{self.app}-{unit}",
                ["/bin/sh", "-ec", script, "sh", self.url, *arguments],
                f"source.git: {what}",
                environment,
                directory or Path("/"),
                [directory] if directory else (),
                credentials,
            )
        except Failed as error:
            raise Failed(f"{error}{self._advice(str(error))}") from error

    def _advice(self, error: str) -> str:
        if "Host key verification failed" in error and self.host_key:
            return "\nsource.host_key does not name the key that the server shows"
        if "Host key verification failed" in error:
            return (
                f"\nthe server's key is not the one in {self.known_hosts}, where it was noted when it was first seen. "
                "If the server really has a new one, give that as source.host_key, or remove the old line from the file"
            )
        if "Permission denied (" in error and not self.key:
            return "\na private repository needs source.key, a deploy key; the host's own keys are not used"
        return ""

    def _known(self) -> str:
        try:
            return self.known_hosts.read_text()
        except FileNotFoundError:
            return ""

    def _learn_host_key(self) -> None:
        """Note the server's key if it is seen for the first time.

        Only root may write the file, so that it is root who looks: at the key exchange and at nothing else.
        """
        if self.host_key:
            return
        if not shutil.which("ssh"):
            raise Failed("package openssh-client is not installed on this host; playbooks/site.yml installs it")
        # The other form is user@host:path.
        server = urlsplit(self.url if "://" in self.url else f"ssh://{self.url.replace(':', '/', 1)}")
        name = f"[{server.hostname}]:{server.port}" if server.port not in (None, 22) else str(server.hostname)
        with _learning:
            known = subprocess.run(["ssh-keygen", "-F", name, "-f", self.known_hosts], capture_output=True, check=False)
            if known.returncode == 0:
                return
            make_directory(self.known_hosts.parent)
            hosts = _HOSTS.format(self.known_hosts, "accept-new")
            command = f"{_SSH} {hosts} -o IdentityFile=none -o PreferredAuthentications=none".split()
            # It is not let in, nor means to be. What else may be wrong will be said when git is run.
            subprocess.run(
                [*command, "--", f"ssh://{server.netloc}", "true"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
