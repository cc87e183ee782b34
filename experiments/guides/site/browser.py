"""Looks at the built site in Chromium, without a network: requests, console, search, a phone's width, dark mode.

Chromium is driven through two pipes by its DevTools protocol, so that nothing but the browser has to be installed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Browser", "check", "find_browser"]

_PHONE, _DESK = (390, 844), (1280, 900)
_CLEAR = """
const input = document.querySelector("[data-md-component=search-query]");
input.focus();
input.select();
"""
_SEARCH = """
new Promise(done => {
  const input = document.querySelector("[data-md-component=search-query]");
  input.dispatchEvent(new KeyboardEvent("keyup"));
  const started = Date.now();
  const poll = setInterval(() => {
    const found = document.querySelectorAll(".md-search-result__item a").length;
    if (found || Date.now() - started > 20000) { clearInterval(poll); done(found); }
  }, 50);
})
"""


def find_browser() -> str | None:
    """Returns the path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def check(site: Path, *, pages: Sequence[str] = (), pictures: Path | None = None) -> list[str]:
    """Opens the pages of a site, and says what is wrong with them.

    Args:
        site: the folder that was built.
        pages: paths below it, such as "start/index.html"; all pages where none is given.
        pictures: a folder for pictures of each page, on a desk, on a phone and in the dark; None for none.

    Returns:
        One line for each fault: a request that failed or left the machine, an error of the console, a page that is
        wider than a phone, a search without results, a page that stays light in dark mode.
    """
    chosen = list(pages) or sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    faults = []
    with _served(site) as address, Browser(address) as browser:
        for page in chosen:
            url = f"{address}/{page.removesuffix('index.html')}"
            faults += [f"{page}: {fault}" for fault in browser.open(url, *_DESK)]
            _picture(browser, pictures, page, "desk")
            browser.resize(*_PHONE)
            width = browser.evaluate("document.documentElement.scrollWidth")
            if width > _PHONE[0]:
                faults.append(f"{page}: {width} pixels wide on a phone of {_PHONE[0]}")
            _picture(browser, pictures, page, "phone")
        # The last page, now in the dark; the switch of the theme's palette follows the system at first.
        browser.darken()
        faults += browser.open(f"{address}/", *_DESK)
        if browser.evaluate("document.body.dataset.mdColorScheme") != "slate":
            faults.append("index.html: light in dark mode")
        _picture(browser, pictures, "index.html", "dark")
        for word in ("hypergradient", "weighted_loss", "resume"):
            browser.evaluate(f"{{{_CLEAR}}}")
            browser.type(word)
            if not browser.evaluate(_SEARCH):
                faults.append(f"index.html: the search for {word!r} found nothing")
        browser.evaluate("new Promise(done => setTimeout(done, 500))")  # the list unfolds slowly
        _picture(browser, pictures, "index.html", "search")
        faults += browser.faults()
    return faults


def _picture(browser: Browser, folder: Path | None, page: str, kind: str) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = page.removesuffix("/index.html").removesuffix(".html").replace("/", "_")
        (folder / f"{name}_{kind}.png").write_bytes(browser.picture())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def _served(site: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Browser:
    """Drives one tab of a headless Chromium that can reach no host but one.

    Args:
        address: the beginning of the addresses that pages may ask for, such as "http://127.0.0.1:8000".

    Raises:
        FileNotFoundError: neither Chromium nor Chrome is installed.
    """

    def __init__(self, address: str):
        """Starts the browser."""
        program = find_browser()
        if program is None:
            raise FileNotFoundError("neither chromium nor google-chrome is installed")
        self._address = address
        self._faults: list[str] = []
        self._loaded = False
        self._number = 0
        self._profile = tempfile.TemporaryDirectory()
        from_here, to_browser = os.pipe()
        from_browser, to_here = os.pipe()

        def connect() -> None:
            # The browser reads commands from the descriptor 3, and writes to 4. Copies first, since 3 may be in use.
            read, write = os.dup(from_here), os.dup(to_here)
            os.dup2(read, 3)
            os.dup2(write, 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += ["--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        options += ["--disable-background-networking", f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            [program, *options],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_here)
        os.close(to_here)
        self._input, self._output = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        """Returns the browser."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Ends the browser."""
        self._process.terminate()
        self._process.wait()
        self._input.close()
        self._output.close()
        with contextlib.suppress(OSError):
            self._profile.cleanup()

    def open(self, url: str, width: int, height: int) -> list[str]:
        """Opens a page and waits until it has loaded.

        Args:
            url: its address.
            width: of the window, in pixels.
            height: of the window, in pixels.

        Returns:
            What went wrong since the last call.
        """
        self.resize(width, height)
        self._loaded = False
        self._call("Page.navigate", url=url)
        while not self._loaded:
            self._hear(self._read())
        # Scripts that start when the page has loaded, and what they ask for.
        self.evaluate("new Promise(done => requestIdleCallback(() => setTimeout(done, 20)))")
        return self.faults()

    def faults(self) -> list[str]:
        """Returns what went wrong since the last call: requests and messages of the console."""
        found, self._faults = self._faults, []
        return found

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the window, in pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def darken(self) -> None:
        """Lets pages know that the user likes them dark."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def evaluate(self, script: str) -> Any:
        """Returns the value of a script, or of what it promises.

        Args:
            script: JavaScript.
        """
        result = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return result["result"].get("value")

    def type(self, text: str) -> None:
        """Types a text where the cursor is.

        Args:
            text: the text.
        """
        self._call("Input.insertText", text=text)

    def picture(self) -> bytes:
        """Returns a picture of the window, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._input.write(json.dumps(message).encode() + b"\0")
        self._input.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._hear(answer)

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (letter := self._output.read(1)) != b"\0":
            if not letter:
                raise RuntimeError("the browser has ended")
            message += letter
        return json.loads(message)

    def _hear(self, event: dict[str, Any]) -> None:
        """Notes an event: the end of loading, or what may be a fault."""
        method, values = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith((self._address, "data:", "blob:")):
                self._faults.append(f"asks another host: {url}")
        elif method == "Network.responseReceived" and values["response"]["status"] >= 400:
            self._faults.append(f"{values['response']['status']}: {values['response']['url']}")
        elif method == "Network.loadingFailed" and not values.get("canceled"):
            self._faults.append(f"a request failed: {values['errorText']}")
        elif method == "Runtime.exceptionThrown":
            self._faults.append(f"an exception: {values['exceptionDetails']['text']}")
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self._faults.append(f"console: {[one.get('value') for one in values['args']]}")
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self._faults.append(f"log: {values['entry']['text']}")
