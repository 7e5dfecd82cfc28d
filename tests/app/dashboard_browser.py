"""The dashboard's page in Chromium. Says "crash" or "work" to have the pool do that, and "done" at the end.

Arguments: the folder of browser.py, the page's address, and a folder for pictures or nothing.
"""

import os
import sys

sys.path.insert(0, sys.argv[1])
from browser import Browser  # noqa: E402

url = sys.argv[2].strip()
pictures = sys.argv[3]

CARD = "[...document.querySelectorAll('section')].find((s) => s.querySelector('h2').textContent === 'in the browser')"
NUMBER = "Number([..." + CARD + ".querySelectorAll('dt')].find((d) => d.textContent === '%s').nextSibling.textContent.replaceAll(',', ''))"


def ask(what):
    print(what, flush=True)
    assert sys.stdin.readline() == "yes\n"


# Of each text on the page: its contrast with what is behind it, as WCAG reckons it. Answers those below 4.5.
CONTRAST = """
const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
};
const weak = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE"].includes(node.tagName) || !node.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(node.tagName + ": " + walker.currentNode.textContent);
}
return weak;
"""


def check(width, dark):
    with Browser(width=width, height=900, dark=dark) as browser:
        browser.open(url)
        browser.wait(f"return {CARD} !== undefined")
        browser.wait("return document.querySelector('svg.chart .curve').getAttribute('d') !== ''")
        # Nothing sticks out: the page scrolls down only.
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "wider than the window"
        assert browser.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert browser.run(CONTRAST) == [], browser.run(CONTRAST)

        # Live: what happens is shown without a click, and what was opened stays open.
        crashed = browser.run(f"return {NUMBER % 'crashed'}")
        assert crashed >= 1
        browser.run(f"{CARD}.querySelector('summary').focus()")
        browser.keys("\ue007")    # Enter
        assert "crash()" in browser.wait(f"return {CARD}.querySelector('details[open] pre')?.textContent")
        done = browser.run(f"return {NUMBER % 'done'}")
        ask("work")
        browser.wait(f"return {NUMBER % 'done'} >= {done} + 100")
        ask("crash")
        browser.wait(f"return {NUMBER % 'crashed'} === {crashed + 1}")
        browser.wait(f"return {CARD}.querySelectorAll('details').length === {crashed + 1}")
        assert browser.run(f"return {CARD}.querySelectorAll('details[open]').length") == 1
        assert browser.run(f"return {CARD}.querySelectorAll('tbody tr').length") == 2
        assert browser.run(CONTRAST) == [], browser.run(CONTRAST)
        if pictures:
            browser.screenshot(os.path.join(pictures, f"dashboard-{width}-{'dark' if dark else 'light'}.png"))

        # By the keyboard alone: the first two stops are the buttons.
        browser.run("document.activeElement.blur(); document.body.focus()")
        browser.open(url)
        browser.wait(f"return {CARD} !== undefined")
        browser.keys("\ue004")    # Tab
        assert browser.run("return document.activeElement.id") == "pause"
        browser.keys(" ")
        assert browser.run("return document.activeElement.getAttribute('aria-pressed')") == "true"
        browser.keys(" ", "\ue004", "\ue007")
        assert browser.run("return document.documentElement.dataset.theme") == ("light" if dark else "dark")
        assert browser.run(CONTRAST) == [], browser.run(CONTRAST)
        assert browser.console_errors() == [], browser.console_errors()


def check_refused():
    with Browser(width=360, height=640) as browser:
        browser.open(url[:-1] + ("0" if url[-1] != "0" else "1"))
        text = browser.run("return document.body.textContent")
        assert "token" in text and "Tasks a second" not in text, text


check(1440, dark=False)
check(360, dark=True)
check_refused()
print("done", flush=True)
