"""A headless Chromium that a test drives over its DevTools protocol: `with browser() as tab`."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
SECONDS = 60.0
# Key events carry the key's old number as well.
KEYS = {"ArrowLeft": 37, "ArrowRight": 39}


class Tab:
    """One tab. Whatever the page asks of the network, or complains of, is noted."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.asked: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=SECONDS))
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                return said["result"]
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(said["params"]["exceptionDetails"]["text"])
            case "Log.entryAdded" if said["params"]["entry"]["level"] == "error":
                self.complaints.append(said["params"]["entry"]["text"])

    def open(self, address: str, width: int, height: int = 900) -> None:
        """Load a page in a window of that many CSS pixels, a phone's if it is narrow."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def get(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for an expression to be true."""
        deadline = time.monotonic() + SECONDS
        while not self.get(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key in the element that has the focus."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def point_at(self, selector: str) -> None:
        """Move the mouse to the middle of the first element that matches."""
        x, y = self.get(f"""(() => {{
            const found = document.querySelector({selector!r});
            found.scrollIntoView({{ block: "center", inline: "center" }});
            const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a form's file input, as a person does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def printed(self) -> bytes:
        """The page as a PDF on A4 paper."""
        return base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])


@contextlib.contextmanager
def browser() -> Iterator[Tab]:
    """A Chromium with one empty tab, ended with the block. Skips the test where none is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(NAMES)})")
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--remote-debugging-port=0",
    ]
    with tempfile.TemporaryDirectory(prefix="rdmd-chromium-", ignore_cleanup_errors=True) as profile:
        log = Path(profile) / "log.txt"
        with log.open("wb") as output:
            started = subprocess.Popen(
                [*command, f"--user-data-dir={profile}/profile", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            # Its frames are images: PDF and screenshots are larger than the library's default limit.
            with connect(_tab_of(log, started), max_size=None, proxy=None) as socket:
                yield Tab(socket)
        finally:
            started.terminate()
            started.wait(20)


def _tab_of(log: Path, started: subprocess.Popen[bytes]) -> str:
    """The address of the tab's socket, once Chromium says where it listens."""
    deadline = time.monotonic() + SECONDS
    while (found := re.search(r"DevTools listening on ws://([\d.:]+)/", log.read_text(errors="replace"))) is None:
        assert started.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://{found[1]}/json/list", timeout=SECONDS) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
