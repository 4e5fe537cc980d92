import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_defaults_are_fit_for_production(monkeypatch):
    settings = Settings()
    assert settings.allowed_hosts == ["localhost", "127.0.0.1"]
    assert settings.log_level == "INFO"
    assert not settings.docs


def test_environment(monkeypatch):
    monkeypatch.setenv("APP_ALLOWED_HOSTS", "api.example.com, *.example.org,")
    monkeypatch.setenv("APP_LOG_LEVEL", "debug")
    settings = Settings()
    assert settings.allowed_hosts == ["api.example.com", "*.example.org"]
    assert settings.log_level == "DEBUG"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_ALLOWED_HOSTS", ""),
        ("APP_ALLOWED_HOSTS", " , "),
        ("APP_LOG_LEVEL", "loud"),
        ("APP_CACHE_URL", "http://user:secret@localhost"),
        ("APP_DOCS", "perhaps"),
    ],
)
def test_nonsense_is_refused_without_printing_it(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("APP_").lower()) as error:
        Settings()
    assert "secret" not in str(error.value)


def test_password_in_the_cache_url_is_not_shown():
    assert "secret" not in repr(Settings(cache_url="redis://:secret@localhost"))
