"""All settings come from the environment; every one has a default fit for production."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import __version__


def split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseSettings):
    # Errors must not print the input: CACHE_URL may hold a password, and errors go to the log.
    model_config = SettingsConfigDict(env_prefix="APP_", frozen=True, hide_input_in_errors=True)

    version: str = __version__
    allowed_hosts: Annotated[list[str], NoDecode, BeforeValidator(split_commas), Field(min_length=1)] = [
        "localhost",
        "127.0.0.1",
    ]
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = "INFO"
    cache_url: Annotated[str, Field(pattern=r"^(memory|redis)://", repr=False)] = "memory://"
    docs: bool = False
