"""A headless Chromium that tests drive, by chromedriver and Python's standard library alone.

with Browser(width=1440, height=900) as browser:
    browser.open("file:///page.html")
    browser.keys("+")
    assert browser.run("return document.title") == "A page"
    assert not browser.console_errors()

Every process it starts ends with it, and its profile goes too, whatever happens.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PATIENCE = 60  # seconds: a loaded machine is slow

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-device-scale-factor=1"]


class BrowserError(Exception):
    pass


def available():
    return shutil.which("chromedriver") is not None and shutil.which("chromium") is not None


class Browser:
    def __init__(self, width=1440, height=900, dark=False):
        self._folder = tempfile.mkdtemp(prefix="multihull-browser-")
        self._driver = None
        self._session = None
        try:
            self._start_driver()
            self._start_session(width, height, dark)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._session:
            try:
                self._call("DELETE", "")
            except (BrowserError, OSError):
                pass
            self._session = None
        if self._driver:
            # Chromium is in the same session: nothing of it stays.
            try:
                os.killpg(self._driver.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._driver.wait()
            self._driver.stdout.close()
            self._driver = None
        # Processes that were killed just now may still write there.
        for _ in range(50):
            shutil.rmtree(self._folder, ignore_errors=True)
            if not os.path.exists(self._folder):
                break
            time.sleep(0.1)

    def _start_driver(self):
        environment = dict(os.environ, HOME=self._folder, TMPDIR=self._folder)
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        env=environment, start_new_session=True)
        for line in self._driver.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                self._url = f"http://127.0.0.1:{found.group(1)}"
                return
        raise BrowserError("chromedriver did not start")

    def _start_session(self, width, height, dark):
        flags = FLAGS + [f"--user-data-dir={self._folder}/profile", f"--window-size={width},{height}"]
        if dark:
            flags.append("--force-dark-mode")
        answer = self._request("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": flags, "binary": shutil.which("chromium")}}}})
        self._session = answer["sessionId"]
        # A window can't be as narrow as a telephone; the page in it can.
        self.devtools("Emulation.setDeviceMetricsOverride",
                      {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.devtools("Emulation.setEmulatedMedia",
                      {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})

    def _request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(error.read().decode()[:2000]) from None

    def _call(self, method, path, body=None):
        return self._request(method, f"/session/{self._session}{path}", body)

    def devtools(self, command, parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """What a function body returns in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script):
        """Runs it again and again until it returns what is true, and answers that."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.02)
        raise BrowserError(f"never became true: {script}")

    def move(self, x, y):
        """The pointer, to a place in the window."""
        self._pointer([{"type": "pointerMove", "duration": 0, "x": int(x), "y": int(y)}])

    def click(self, x, y):
        self._pointer([{"type": "pointerMove", "duration": 0, "x": int(x), "y": int(y)}, {"type": "pointerDown", "button": 0},
                       {"type": "pointerUp", "button": 0}])

    def drag(self, x, y, to_x, to_y):
        self._pointer([{"type": "pointerMove", "duration": 0, "x": int(x), "y": int(y)}, {"type": "pointerDown", "button": 0},
                       {"type": "pointerMove", "duration": 0, "x": int(to_x), "y": int(to_y)}, {"type": "pointerUp", "button": 0}])

    def _pointer(self, actions):
        self._call("POST", "/actions", {"actions": [
            {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}]})

    def wheel(self, x, y, amount):
        self._call("POST", "/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [
            {"type": "scroll", "x": int(x), "y": int(y), "deltaX": 0, "deltaY": amount, "duration": 0}]}]})

    def keys(self, *keys):
        """Keys, one by one, to what has the focus: characters, or the code points of WebDriver."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def console_errors(self):
        """What the console has said of errors and warnings since it was last asked."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})
                if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, path, whole=True):
        parameters = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.run("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
            parameters["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.devtools("Page.captureScreenshot", parameters)["data"]))
