"""FastAPI's own pages may load what is in them, and nothing else on the site may."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

# What no page names: ReDoc's scripts and Google's style sheet load it from there.
LOADED_LATER = {"https://cdn.redoc.ly", "https://fonts.gstatic.com"}


class Page(HTMLParser):
    """What a page loads, as (directive, URL), and what is inline, as (directive, "")."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: set[tuple[str, str]] = set()
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.inline = tag if tag in ("script", "style") and "src" not in attributes else ""
        if tag == "script" and "src" in attributes:
            self.loads.add(("script-src", attributes["src"]))
        elif tag == "img":
            self.loads.add(("img-src", attributes["src"]))
        elif tag == "link":
            self.loads.add(("style-src" if attributes["rel"] == "stylesheet" else "img-src", attributes["href"]))
        if "style" in attributes:
            self.loads.add(("style-src", ""))

    def handle_data(self, data):
        if self.inline and data.strip():
            self.loads.add((f"{self.inline}-src", ""))

    def handle_endtag(self, tag):
        self.inline = ""


def refused(policy: str, page: Page) -> set[tuple[str, str]]:
    """What of a page a browser would not load under a policy."""
    sources = {words[0]: words[1:] for words in (part.split() for part in policy.split(";")) if words}

    def allowed(directive: str, url: str) -> bool:
        granted = sources.get(directive, sources["default-src"])
        if not url:
            return "'unsafe-inline'" in granted
        parts = urlsplit(url)
        return (f"{parts.scheme}://{parts.netloc}" if parts.netloc else "'self'") in granted

    return {load for load in page.loads if not allowed(*load)}


@pytest.fixture
def ask(web):
    return lambda path: web.get(f"https://blog.example.com{path}", cert="blog")


def test_the_documentation_may_load_what_it_needs_and_no_more(ask):
    hosts = set()
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        response = ask(path)
        assert response.status == 200, response
        page, policy = Page(response.body), response.headers["content-security-policy"]
        assert ("script-src", "") in page.loads or "redoc" in path, "the page is not what it was: look at the policy"
        assert refused(policy, page) == set(), path
        hosts |= {"{0.scheme}://{0.netloc}".format(urlsplit(url)) for _, url in page.loads if url}
    assert {word for word in policy.replace(";", "").split() if word.startswith("https://")} == hosts | LOADED_LATER
    assert ask("/openapi.json").status == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_elsewhere_the_same_would_be_blocked(ask, path):
    """Scripts from a CDN, and scripts that somebody got into a page."""
    page = Page(ask(path).body)
    for other in ("/whoami", "/docs/x", "/static/style.css", "/no-such-page"):
        policy = ask(other).headers["content-security-policy"]
        assert refused(policy, page) == page.loads, other
