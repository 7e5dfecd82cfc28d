"""Takes points from the queue of a C++ program and draws them: with matplotlib where it is installed, else as an SVG of its own.

usage: plot.py PICTURE, with the manager's address and key as two lines on stdin
"""
import sys
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


Manager.register("points")


def connect():
    address = sys.stdin.readline().strip()
    key = sys.stdin.readline().strip()
    # Python writes the name of a socket without a file with a zero in front.
    manager = Manager("\0" + address[1:] if address.startswith("@") else address, key.encode())
    manager.connect()
    return manager


def draw_with_matplotlib(points, picture):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.plot(*zip(*points))
    pyplot.xlabel("x")
    pyplot.savefig(picture, format="svg")


def draw_by_hand(points, picture):
    width, height, margin = 640, 400, 20
    xs, ys = zip(*points)
    left, bottom = min(xs), min(ys)
    across = (width - 2 * margin) / ((max(xs) - left) or 1)
    up = (height - 2 * margin) / ((max(ys) - bottom) or 1)
    places = " ".join(
        f"{margin + (x - left) * across:.1f},{height - margin - (y - bottom) * up:.1f}" for x, y in points
    )
    with open(picture, "w", encoding="utf-8") as out:
        out.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">\n'
            f'<rect width="{width}" height="{height}" fill="white"/>\n'
            f'<polyline points="{places}" fill="none" stroke="steelblue" stroke-width="2"/>\n'
            f'<text x="{width / 2}" y="{height - 4}" font-size="12" text-anchor="middle">x</text>\n</svg>\n'
        )


def main():
    queue = connect().points()
    points = []
    while (point := queue.get()) is not None:
        points.append(point)
    points.sort()    # they come from several workers at once
    try:
        draw_with_matplotlib(points, sys.argv[1])
    except ImportError:
        draw_by_hand(points, sys.argv[1])
    print(f"plot.py took {len(points)} points from the queue and drew them")


main()
