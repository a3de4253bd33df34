"""A headless Chromium that tests talk to over a pipe, in the words of its DevTools protocol."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60


class Browser:
    """One page of a Chromium with a profile of its own; a context that ends the process."""

    def __init__(self):
        self.profile = tempfile.mkdtemp()
        theirs, self.sending = os.pipe()
        self.receiving, out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes what it has to say to descriptor 4.
        command = f'exec chromium {" ".join(FLAGS)} --user-data-dir="$0" about:blank 3<&{theirs} 4>&{out}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, self.profile], pass_fds=(theirs, out), stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(out)
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        self.messages = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self):
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the process."""
        self.process.terminate()
        self.process.wait(SECONDS)
        os.close(self.sending)
        os.close(self.receiving)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **parameters):
        """The result of a command."""
        number = next(self.numbers)
        session = {"sessionId": self.session} if self.session else {}
        text = json.dumps({"id": number, "method": method, "params": parameters, **session})
        os.write(self.sending, text.encode() + b"\0")
        while (message := self._next()).get("id") != number:
            self._note(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path):
        """Opens a file; returns once it is loaded."""
        self.messages.clear()
        self.call("Page.navigate", url=path.as_uri())
        while (message := self._next()).get("method") != "Page.loadEventFired":
            self._note(message)

    def run(self, script):
        """The value of an expression on the page, as JSON can hold it."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def size(self, width, height=900):
        """Sets the size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def scheme(self, name):
        """Sets the colors wanted: `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def press(self, key, code=0):
        """Presses a key where the focus is."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path):
        """Writes what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def pdf(self):
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def _note(self, message):
        """Keeps what the page complains of."""
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(message["params"])

    def _next(self):
        end = time.monotonic() + SECONDS
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.receiving], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser says nothing"
            part = os.read(self.receiving, 1 << 16)
            assert part, "the browser has ended"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)
