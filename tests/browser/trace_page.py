"""Opens a trace's page as a reader would, and tells what is not as it should be: exit status 1, a line each.

usage: trace_page.py PAGE.html [FOLDER-FOR-PICTURES]
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from browser import Browser  # noqa: E402

wrong = []


def check(right, what):
    if not right:
        wrong.append(what)


RANGE = "const d = document.getElementById('line').dataset; return [Number(d.from), Number(d.to)]"
DRAWN = "return Number(document.getElementById('line').dataset.drawn)"

# Colours by the contrast that people need (WCAG AA: 4.5), of all text that is shown, against what is behind it.
CONTRAST = """
const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const parse = (text) => { const m = text.match(/[\\d.]+/g).map(Number); return {rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1}; };
const poor = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.offsetParent || e.tagName === 'SCRIPT') continue;
  let behind = e, color = null;
  while (behind) { const c = parse(getComputedStyle(behind).backgroundColor); if (c.a === 1) { color = c.rgb; break; } behind = behind.parentElement; }
  if (!color) color = [255, 255, 255];
  const a = light(parse(getComputedStyle(e).color).rgb), b = light(color);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 30) + ' ' + ratio.toFixed(2));
}
for (const c of COLORS) {
  const rgb = [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16));
  if (1.05 / (light(rgb) + 0.05) < 4.5) poor.push('white on ' + c);
}
return poor;
"""


def look(page, width, height, dark, pictures):
    name = f"{width}{'-dark' if dark else ''}"
    with Browser(width, height, dark) as browser:
        browser.open(page)
        browser.wait(DRAWN)
        size = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
        check(size[0] <= size[1], f"{name}: the page is wider than the window: {size}")
        check(browser.run("return document.getElementById('cards').children.length") == 5, f"{name}: not five cards")
        check(browser.run("return document.querySelectorAll('#slow tr').length") > 0, f"{name}: no slowest tasks")
        for poor in browser.run(CONTRAST):
            wrong.append(f"{name}: poor contrast: {poor}")
        if width == 1440 and not dark:
            use(browser)
        if pictures:
            browser.screenshot(f"{pictures}/trace-{name}.png", whole=True)
        for message in browser.console_errors():
            wrong.append(f"{name}: the console says: {message}")


def settle(browser):
    """Until what was asked for is drawn."""
    before = browser.run(DRAWN)
    browser.run("redraw()")
    browser.wait(f"return Number(document.getElementById('line').dataset.drawn) > {before}")


def use(browser):
    browser.run("document.getElementById('line').scrollIntoView({block: 'center'})")
    settle(browser)
    whole = browser.run(RANGE)
    # The pointer, over the middle of some task.
    place = browser.run("""
        const task = tasks.reduce((a, b) => (b.ended - b.started > a.ended - a.started ? b : a));
        const box = canvas.getBoundingClientRect();
        return [box.left + x((task.started + task.ended) / 2), box.top + AXIS + (task.worker + 0.5) * rowHeight, describe(task)];
    """)
    browser.move(place[0], place[1])
    browser.wait("return !document.getElementById('tip').hidden")
    check(browser.run("return document.getElementById('tip').textContent") == place[2], "the tip tells of another task")
    browser.click(place[0], place[1])
    check(browser.run("return document.getElementById('details').textContent") == place[2], "a click selects another task")
    browser.wheel(place[0], place[1], -200)
    near = browser.wait(f"const [a, b] = (() => {{ {RANGE} }})(); return b - a < {whole[1] - whole[0]} && [a, b]")
    browser.drag(place[0], place[1], place[0] - 100, place[1])
    browser.wait(f"return Number(document.getElementById('line').dataset.from) !== {near[0]}")
    # The keyboard alone.
    browser.run("canvas.focus()")
    browser.keys("0")
    check(browser.run(RANGE) == whole, "0 does not show all")
    browser.keys("+", "+")
    zoomed = browser.run(RANGE)
    check(abs((zoomed[1] - zoomed[0]) / (whole[1] - whole[0]) - 0.25) < 1e-6, f"+ + shows {zoomed} of {whole}")
    browser.keys("\ue014")
    check(browser.run(RANGE)[0] > zoomed[0], "the right arrow does not move")
    browser.keys("-", "-", "-")
    check(browser.run(RANGE) == whole, "- does not zoom out")
    browser.keys("n", "n", "p", "\ue015")
    check("worker" in browser.run("return document.getElementById('details').textContent"), "n selects nothing")
    browser.keys("f")
    shown = browser.run("return document.getElementById('details').textContent")
    check(any(word in shown for word in ("exception", "crashed", "timed out")), f"f shows no failure: {shown}")
    # A row of a table leads to its task.
    browser.run("const row = document.querySelector('#slow tr'); row.focus()")
    browser.keys("\ue007")
    check(browser.run("return selected === tasks.reduce((a, b) => (b.ended - b.started > a.ended - a.started ? b : a))"),
          "Enter on the slowest task does not show it")
    check(browser.run("return document.querySelectorAll('#failures tr').length") == browser.run("return data.failures.length"),
          "not every failure has its row")
    check(browser.run("return performance.getEntriesByType('resource').length") == 0, "the page asks for more than itself")


def main():
    page = pathlib.Path(sys.argv[1]).resolve().as_uri()
    pictures = sys.argv[2] if len(sys.argv) > 2 else None
    for width, height, dark in ((1440, 900, False), (1440, 900, True), (360, 740, False)):
        look(page, width, height, dark, pictures)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
