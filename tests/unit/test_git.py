"""Repositories, asked and fetched from with real git; molecule/deploys shows on a host what takes an SSH server.

Only systemd-run is stood in for.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import git

from ansible_collections.slipway.asgi.plugins.module_utils.git import Repository, is_ssh
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed

Commands = Callable[[], list[list[list[str]]]]


def commit_at(url: str, version: str) -> str:
    return Repository("shop", {"git": url}, {}).commit(version)


@pytest.mark.usefixtures("sandboxed")
class TestCommit:
    @pytest.mark.parametrize(
        ("version", "commit"),
        [("v1.0", "main~1"), ("light", "main~1"), ("feature/cart", "main~1"), ("main", "main"), ("HEAD", "main")],
    )
    def test_of_a_tag_a_branch_and_head(self, repository: Path, version: str, commit: str) -> None:
        assert commit_at(f"file://{repository}", version) == git(repository, "rev-parse", commit)

    def test_a_tag_goes_before_a_branch_of_its_name(self, repository: Path) -> None:
        git(repository, "branch", "v1.0", "main")
        assert commit_at(f"file://{repository}", "v1.0") == git(repository, "rev-parse", "main~1")

    def test_a_full_commit_is_one_without_asking(self) -> None:
        assert commit_at("file:///nowhere", "a" * 40) == "a" * 40

    def test_a_version_that_is_not_there(self, repository: Path) -> None:
        with pytest.raises(Failed, match=r'source\.version is "v9": file:///.* has no tag or branch of this name'):
            commit_at(f"file://{repository}", "v9")

    def test_a_repository_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(Failed, match=r"source\.git: reading file:///.* failed with status 128:\n(?s:.*)nowhere"):
            commit_at(f"file://{tmp_path}/nowhere", "v1")


@pytest.mark.parametrize(
    ("url", "ssh"),
    [
        ("git@git.example.com:shop.git", True),
        ("ssh://git@git.example.com:2222/shop.git", True),
        ("https://git.example.com/shop.git", False),
        ("file:///srv/shop.git", False),
    ],
)
def test_both_sides_agree_on_what_is_reached_over_ssh(url: str, ssh: bool) -> None:
    assert is_ssh(url) == ssh


class TestToken:
    """What https does is the same over http, which needs no certificate; the resolver refuses a token for that."""

    @pytest.fixture
    def served(self, repository: Path, tmp_path: Path) -> Path:
        git(tmp_path, "clone", "--quiet", "--bare", str(repository), "web/shop.git")
        git(tmp_path / "web/shop.git", "update-server-info")
        return tmp_path / "web"

    def source(self, url: str, username: str = "deploy") -> dict[str, Any]:
        return {"git": f"{url}/shop.git", "username": username}

    @pytest.mark.parametrize("token", ["hunter2", "hunter2 %'\"$(id)\\"])
    def test_opens_a_repository(
        self, served: Path, guarded: Callable[..., Any], sandboxed: Commands, tmp_path: Path, token: str
    ) -> None:
        server = guarded(served, "deploy", token)
        repository = Repository("shop", self.source(server.url), {"source.token": token})
        found = repository.commit("v1.0")
        (tmp_path / "release").mkdir()
        repository.fetch(repository.commit("main"), tmp_path / "release")
        assert os.listdir(tmp_path / "release/src") == ["requirements.txt"]
        assert found == git(served / "shop.git", "rev-parse", "v1.0^{commit}")
        assert any(allowed for _, allowed in server.seen)
        # Neither in a command line nor in an environment.
        assert len(sandboxed()) == 3 and "hunter2" not in json.dumps(sandboxed())
        assert all(any("LoadCredential=login:/proc/" in text for text in command[1]) for command in sandboxed())

    @pytest.mark.usefixtures("sandboxed")
    def test_that_is_wrong_is_refused_without_showing_it(self, served: Path, guarded: Callable[..., Any]) -> None:
        server = guarded(served, "deploy", "right")
        with pytest.raises(Failed, match=r"source\.git: reading http(?s:.*)Authentication failed") as failed:
            Repository("shop", self.source(server.url), {"source.token": "canary"}).commit("v1.0")
        assert "canary" not in str(failed.value)

    @pytest.mark.usefixtures("sandboxed")
    def test_is_for_its_own_server_alone(self, served: Path, guarded: Callable[..., Any], tmp_path: Path) -> None:
        """A server that sends git elsewhere does not get the token sent there."""
        other = guarded(served, "deploy", "canary")
        shutil.rmtree(served, ignore_errors=True)
        server = guarded(tmp_path, "deploy", "canary", elsewhere=other.url)
        with pytest.raises(Failed, match="could not read Username"):
            Repository("shop", self.source(server.url), {"source.token": "canary"}).commit("v1.0")
        assert other.seen and not any(allowed for _, allowed in other.seen)
