"""Settings: secrets from files in $CREDENTIALS_DIRECTORY, everything else from the environment."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}


class Settings(BaseSettings):
    """Each field is an environment variable, or a file of that name among the credentials."""

    model_config = SettingsConfigDict(
        secrets_dir=os.environ.get("CREDENTIALS_DIRECTORY"),
        frozen=True,
        # A secret that fails validation must not end up in the journal.
        hide_input_in_errors=True,
    )

    session_key: SecretStr = Field(min_length=32)
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None

    state_directory: Path = Path("state")
    app: str = Field("guestbook", validation_alias="SLIPWAY_APP")
    release: str = Field("development", validation_alias="SLIPWAY_RELEASE")
    slot: str = Field("none", validation_alias="SLIPWAY_SLOT")

    greeting: str = (
        "Deploy the next one and watch: a boat is launched, the colour changes, "
        "and nobody has to reload."
    )
    poll_seconds: float = Field(0.25, gt=0)
    presence_seconds: float = Field(15, gt=0)

    @property
    def database(self) -> URL:
        """The database's address, with the asynchronous driver filled in."""
        if self.database_url is None:
            path = self.state_directory.absolute() / "guestbook.sqlite3"
            if "state_directory" not in self.model_fields_set:
                path.parent.mkdir(exist_ok=True)
            return URL.create("sqlite+aiosqlite", database=str(path))
        url = make_url(self.database_url.get_secret_value())
        driver = DRIVERS.get(url.get_backend_name())
        if driver is None:
            raise ValueError(f"database_url: {url.drivername} is none of {', '.join(DRIVERS)}")
        return url.set(drivername=driver)


# Read at import: without its secrets the app does not start, and a configuration check sees it.
settings = Settings()  # type: ignore[call-arg]
