"""HTML pages taken apart, and opened in a real browser."""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest


class Tags(HTMLParser):
    """Every tag with its attributes, and the texts by the tag and by the class they stand in."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, [("", "")]
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.open.append((tag, dict(attributes).get("class", "")))

    def handle_endtag(self, tag):
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for name in set(self.open[-1]):
            self.texts.setdefault(name, []).append(data)

    def values(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def shape(text):
    """The tags of a page and the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in Tags(text).tags]


class Browser:
    """A headless Chromium over a pair of pipes (its DevTools protocol), without any library."""

    # It reads from descriptor 3 and writes to 4; first out of the way of each other.
    START = (
        "import fcntl, os, sys; ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]; "
        "os.dup2(ends[0], 3); os.dup2(ends[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
    )

    def __init__(self, program, profile):
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()
        command = [sys.executable, "-S", "-c", self.START, str(to_browser), str(from_browser), program]
        command += "--headless --no-sandbox --disable-gpu --remote-debugging-pipe".split()
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.count, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        return self._until(lambda answer: answer.get("id") == self.count)["result"]

    def _until(self, wanted):
        while True:
            while b"\0" not in self.buffer:
                received = os.read(self.read_end, 1 << 16)
                assert received, "the browser has ended"
                self.buffer += received
            text, self.buffer = self.buffer.split(b"\0", 1)
            message = json.loads(text)
            self.events.append(message)
            if wanted(message):
                return message

    def open(self, url, width, height):
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=url)
        if not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._until(lambda event: event.get("method") == "Page.loadEventFired")

    def ask(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def visible(self):
        """The ids of the articles that are seen, with commas between."""
        seen = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight > 0)"
        return self.ask(f"{seen}.map(a => a.id).join()")

    def check_quiet(self):
        """Since the page was opened it has loaded nothing but itself, and nothing went wrong in it."""
        parts = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        requests = [part["request"]["url"][:5] for part in parts]
        assert requests and set(requests) <= {"file:", "data:"}
        assert not {"Runtime.exceptionThrown", "Log.entryAdded"} & {event.get("method") for event in self.events}

    def press(self, key, modifiers=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)


def open_browser(profile):
    """A Browser; skips the test where there is no Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    return Browser(program, profile)
