"""What the property test draws: nothing that is checked is left out, and what a controller says of it."""

from __future__ import annotations

from pathlib import Path

import drawing
import pytest
from hypothesis import HealthCheck, given, settings
from rendering import Variables, mistakes_of

from ansible_collections.slipway.asgi.plugins.plugin_utils.kinds import KINDS, VARIABLES


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a file of variables has the source of its apps beside it."""
    path = tmp_path_factory.mktemp("variables")
    drawing.lay_source(path)
    return path


def test_there_is_something_good_for_each_place_that_is_checked() -> None:
    assert set(KINDS) <= set(drawing.GOOD)
    assert set(VARIABLES) <= set(drawing.VARIABLES)


@pytest.mark.parametrize("written", drawing.CLASSES, ids=lambda written: written.name)
def test_each_class_is_taken_or_refused_by_name(directory: Path, written: drawing.Written) -> None:
    (directory / "class.yml").write_text(written.text)
    messages = mistakes_of(directory / "class.yml")
    assert len(messages) == bool(written.refused)
    assert written.refused in "".join(messages)
    if written.environment:
        (app,) = Variables(directory / "class.yml").resolve()["app"]
        seen = {name: str(value) for name, value in app["environment"].items()}
        assert seen in ({}, written.environment)


@settings(max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(drawing.sets())
def test_each_set_is_taken_or_refused_by_name(directory: Path, drawn: drawing.Drawn) -> None:
    (directory / "drawn.yml").write_text(drawn.text)
    messages = mistakes_of(directory / "drawn.yml")
    assert not messages or drawn.are_named(messages)
