"""A headless Chromium, driven through the DevTools protocol over a pipe: no driver, no port, nothing to install."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_S = 60


class Browser:
    """One tab."""

    def __enter__(self) -> "Browser":
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        to_child, ours_out = os.pipe()
        ours_in, from_child = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4. Bash puts them there; dash knows no numbers above 9.
        command = f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}'
        self.process = subprocess.Popen(
            [
                *("bash", "-c", command, CHROMIUM, "--headless=new", "--no-sandbox", "--remote-debugging-pipe"),
                *("--disable-gpu", "--hide-scrollbars", "--no-first-run", f"--user-data-dir={self.profile}"),
                *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
            ],
            pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self.out, self.inp = ours_out, ours_in
        self.buffer, self.events, self.ids, self.session = b"", [], itertools.count(1), None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(10)
        os.close(self.out)
        os.close(self.inp)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method: str, **params):
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        while True:
            answer = self._read(time.monotonic() + TIMEOUT_S)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self, until: float) -> dict:
        while b"\0" not in self.buffer:
            if not select.select([self.inp], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            read = os.read(self.inp, 1 << 20)
            if not read:
                raise RuntimeError(f"Chromium ended with status {self.process.wait(10)}")
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def wait(self, event: str) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self._read(until))

    def open(self, url: str, *, width: int = 1280, dark: bool = False, script: bool = True) -> None:
        """Opens a page and waits until it is loaded; the events of the load are in `events`."""
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        # Without the emulation of a mobile: it would shrink a page that is too wide until it fits.
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.send("Page.navigate", url="about:blank")
        self.wait("Page.loadEventFired")
        self.events.clear()
        self.send("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def run(self, expression: str):
        """Returns the value of a JavaScript expression; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "about:"))]

    def complaints(self) -> list[str]:
        """What the console shows: errors of scripts, and what the page's policy refused."""
        entries = [e["params"]["entry"]["text"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return entries + [str(e["params"]) for e in self.events if e.get("method") == "Runtime.exceptionThrown"]

    def screenshot(self, path: Path, *, whole: bool = False, clip: dict | None = None) -> None:
        more = {"clip": {**clip, "scale": 1}} if clip else {}
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole or bool(clip), **more)
        path.write_bytes(base64.b64decode(data["data"]))

    def print_pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", preferCSSPageSize=True)["data"]))
