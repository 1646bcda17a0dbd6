"""A machine without network."""


def go_offline(monkeypatch):
    """Send every request, until the test's end, to a port where nothing listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
