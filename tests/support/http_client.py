"""HTTP to an engine under test: one connection per call, or one that stays open."""

import http.client
import json
import urllib.parse

TIMEOUT_S = 60
ACCOUNT = "df391b08c64c426a81645468c75163a5"


class Answer:
    """Status, headers (any case) and body of an answer."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


def request(address, method, path, body=None, headers=None, timeout_s=TIMEOUT_S):
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def quoted(text):
    """Text for a path segment."""
    return urllib.parse.quote(text, safe=":")
