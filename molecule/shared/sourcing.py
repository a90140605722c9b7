"""What tests of private sources share: a repository over SSH and over HTTPS, and a package index, on the host."""

import contextlib
import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploying import TINY_APP
from hosts import APP, Site, inside, play
from packing import wheel

TOKEN, PASSWORD = 'canary-token "#\\ $%', 'canary-password "#\\ $%'
# What site.yml has to install for the app.
PACKAGE = "hello"
HOME = "/srv/sources"
SSH = f"ssh://git@localhost:2222{HOME}/web/git/shop.git"
HTTPS = "https://localhost:8843/git/shop.git"
INDEX = "https://localhost:8843/simple/"
INDEX_OPTION = {"url": INDEX, "username": "deploy", "password": "{{ vault_password }}"}
# Servers that only these tests need: sshd on a port of its own, and one more site of the nginx that is there.
SETUP = f"""
apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends openssh-server git
useradd --system --shell /bin/sh --password '*' git
mkdir -p {HOME}/web/git {HOME}/web/simple /run/sshd && cd {HOME}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=Test of sources" \
    -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
    -keyout web.key -out web.csr 2>/dev/null && chgrp slipway-keys web.key && chmod 640 web.key
printf 'subjectAltName=DNS:localhost\\n' >web.ext
openssl x509 -req -in web.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile web.ext -out web.crt 2>/dev/null
ssh-keygen -q -t ed25519 -N "" -C "" -f hostkey
ssh-keygen -q -t ed25519 -N "" -C "" -f deploy && install -m 644 deploy.pub authorized
cat >sshd.conf <<'EOF'
Port 2222
ListenAddress 127.0.0.1
HostKey {HOME}/hostkey
PidFile {HOME}/sshd.pid
AuthorizedKeysFile {HOME}/authorized
AuthenticationMethods publickey
UsePAM no
EOF
/usr/sbin/sshd -f {HOME}/sshd.conf
cat >/etc/nginx/conf.d/sources.conf <<'EOF'
server {{
    listen 127.0.0.1:8843 ssl;
    server_name localhost;
    ssl_certificate {HOME}/web.crt;
    ssl_certificate_key {HOME}/web.key;
    root {HOME}/web;
    default_type text/html;
    auth_basic private;
    location /git/ {{ auth_basic_user_file {HOME}/git.users; }}
    location /simple/ {{ auth_basic_user_file {HOME}/simple.users; }}
}}
EOF
systemctl reload nginx
chown git: {HOME}/web/git
"""
# Looks at all processes over and over, and says who had a canary in its command line or its environment.
WATCH = """
import glob, select, sys
canaries, found = [line.strip().encode() for line in open("/srv/sources/canaries")], set()
while not select.select([sys.stdin], [], [], 0.02)[0]:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            text = open(path, "rb").read()
        except OSError:
            continue
        if any(canary in text for canary in canaries):
            found.add(text)
print(len(found), *found)
"""
PROJECT = f"""
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = []
[project.optional-dependencies]
private = ["acme"]
[tool.uv]
package = false
[[tool.uv.index]]
url = "{INDEX.rstrip("/")}"
default = true
"""


class Sources:
    """The servers on the host, and an app that is deployed from them.

    Attributes:
        said: all that runs have printed.
        canaries: what opens the servers, or is in what does.
    """

    def __init__(
        self,
        directory: Path,
        site: Site,
        app: str = APP,
        token: str = TOKEN,
        password: str = PASSWORD,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Make the servers.

        Args:
            directory: where this test may write.
            site: the app's site.
            app: the app.
            token: what opens the repository over HTTPS.
            password: what opens the index.
            environment: variables of the environment in which playbooks run.
        """
        self.directory = directory
        self.site = site
        self.container = site.container
        self.app = app
        self.password = password
        self.environment = environment
        self.said = ""
        self.inside(SETUP)
        for name, login in {"git": f"x-access-token:{{PLAIN}}{token}", "simple": f"deploy:{{PLAIN}}{password}"}.items():
            self.inside(f"cat >{HOME}/{name}.users", f"{login}\n")
        key = self.inside(f"cat {HOME}/deploy")
        # A key of its own has no word in common with another.
        self.canaries = [token.split()[0], password.split()[0], key.splitlines()[2]]
        self.inside(f"cat >{HOME}/canaries", "\n".join(self.canaries))
        self.vault = {"vault_key": key, "vault_token": token, "vault_password": password}
        self.lock_away()
        self.authority = directory / "sources.crt"
        self.authority.write_text(self.inside(f"cat {HOME}/ca.crt"))
        self.pinned = self.add_package()

    def lock_away(self, **values: str) -> None:
        """Encrypt these and what was encrypted before, with a password that opens nothing else."""
        self.vault |= values
        password, path = self.directory / "password", self.directory / "inventory/group_vars/all/vault.yml"
        password.write_text("of this test\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.opened_by = f"--vault-password-file={password}"
        command = ["ansible-vault", "encrypt", self.opened_by, "--output", str(path), "-"]
        subprocess.run(command, input=yaml.safe_dump(self.vault), text=True, check=True, capture_output=True)

    def inside(self, script: str, given: str | bytes = "") -> str:
        """Run a script on the host as root."""
        return inside(self.container, script, given)

    def add_package(self) -> str:
        """Put a wheel into the index, and return the line of requirements that pins it."""
        name, content = wheel("acme", "1.0", {"acme.py": "NAME = b'acme'\n"})
        digest = hashlib.sha256(content).hexdigest()
        directory = f"{HOME}/web/simple/acme"
        self.inside(f"mkdir {directory} && cat >{directory}/{name}", content)
        self.inside(f"cat >{directory}/index.html", f'<!DOCTYPE html><a href="{name}#sha256={digest}">{name}</a>')
        return f"acme==1.0 --hash=sha256:{digest}\n"

    def commit(self, version: str, locked_by_uv: bool = False, main: str = "") -> None:
        """Put another version of the app into the repository, with this main.py or one that tells the version."""
        files = {"main.py": main or "import acme\n" + TINY_APP.format(f"b'{version} with ' + acme.NAME")}
        files |= {"pyproject.toml": PROJECT} if locked_by_uv else {"requirements.txt": self.pinned}
        work = f"{HOME}/work-{version}"
        self.inside(f"install -d -o git {work}")
        for name, text in files.items():
            self.inside(f"cat >{work}/{name}", text)
        if locked_by_uv:
            escaped = self.password.replace("\\", "\\\\").replace('"', '\\"')
            netrc = f'machine localhost login deploy password "{escaped}"\n'
            self.inside(
                f"cd {work} && cat >/root/netrc && NETRC=/root/netrc SSL_CERT_FILE={HOME}/ca.crt "
                "/opt/slipway/uv/bin/uv lock --quiet --no-cache --python /usr/bin/python3; rm /root/netrc",
                netrc,
            )
        git = "git -c user.name=x -c user.email=x@example.com -c init.defaultBranch=main"
        bare = f"{HOME}/web/git/shop.git"
        script = f"""
            [ -d {bare} ] || {git} init -q --bare {bare}
            export GIT_DIR={bare} GIT_WORK_TREE={work}; cd {work}
            {git} add --all; {git} commit -qm {version}; {git} tag {version}; {git} update-server-info
        """
        self.inside("su git -s /bin/sh -c 'sh -e'", script)

    def new_host_key(self) -> str:
        """Let the SSH server have another key, and return the line of known_hosts for it."""
        self.inside(
            f"cd {HOME} && rm hostkey hostkey.pub && ssh-keygen -q -t ed25519 -N '' -C '' -f hostkey && "
            f"kill $(cat sshd.pid) && sleep 0.2 && /usr/sbin/sshd -f {HOME}/sshd.conf"
        )
        return f"[localhost]:2222 {self.inside(f'cat {HOME}/hostkey.pub')}"

    def deploy(self, playbook: str = "deploy", *arguments: str, **options: Any) -> str:
        """Run a playbook with these options of the app, and return what it says with -vvv."""
        certificates = "query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt')"
        variables = {
            "host_ca_files": f"{{{{ {certificates} + ['{self.authority}'] }}}}",
            "slipway_app_overrides_sources": {
                self.app: {"build": "", "migrate": "", "entrypoint": "main:app", "ready_path": "/", **options}
            },
        }
        inventory = self.directory / "inventory"
        (inventory / "hosts.yml").write_text(yaml.safe_dump({"sources": {"hosts": {self.container: variables}}}))
        said = ""
        try:
            said = play(
                self.container,
                *("-vvv", "--diff", self.opened_by, *arguments),
                inventories=(inventory,),
                playbook=playbook,
                environment=self.environment,
            )
        except AssertionError as error:
            said = str(error)
            raise
        finally:
            self.said += said
        return said

    def refused(self, **options: Any) -> str:
        """Deploy what must be refused, and return why it was."""
        with pytest.raises(AssertionError) as refused:
            self.deploy(**options)
        return str(refused.value)

    def take_away(self) -> None:
        """Take the servers away."""
        self.inside(
            f"kill $(cat {HOME}/sshd.pid); rm /etc/nginx/conf.d/sources.conf; systemctl reload nginx; "
            f"rm -rf /etc/slipway/known_hosts {HOME}; userdel git"
        )


@contextlib.contextmanager
def watched(container: str, user: str = "root") -> Iterator[None]:
    """Insist that meanwhile a user sees no canary in any process's command line or environment."""
    command = ["docker", "exec", "-i", "--user", user, container, "python3", "-c", WATCH]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        yield
        assert watch.communicate("\n", timeout=20)[0] == "0\n"
