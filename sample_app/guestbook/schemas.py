"""What goes in and out of the API and the socket."""

import os
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from guestbook.about import COLOUR, VERSION
from guestbook.settings import settings


def _printable(text: str) -> str:
    if not all(character.isprintable() or character == "\n" for character in text):
        raise ValueError("control characters are not allowed")
    return text


Printable = AfterValidator(_printable)


class EntryIn(BaseModel):
    """An entry as a visitor writes it."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=40), Printable]
    message: Annotated[str, StringConstraints(min_length=1, max_length=280), Printable]


class EntryOut(BaseModel):
    """An entry as everybody reads it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime
    name: str
    message: str
    author: str
    release: str
    slot: str
    pid: int


class About(BaseModel):
    """Which version, release, slot and worker answers, and what it says."""

    version: str = VERSION
    colour: str = COLOUR
    release: str = settings.release
    slot: str = settings.slot
    greeting: str = settings.greeting
    pid: int


class Client(BaseModel):
    """The client as the app sees it, through whatever stands in front."""

    address: str | None
    scheme: str
    host: str


def about() -> About:
    """Return what the worker that runs this says of itself."""
    return About(pid=os.getpid())
