"""`multihull thumbnails` beside Python's PIL, vipsthumbnail, xargs and GNU parallel, on the same photographs.

Makes JPEGs of 12 megapixels from the photographs of Debian's mate-backgrounds, in a temporary folder, which is gone at the end. Then each
competitor, started as a whole process, makes a thumbnail of each; in each round each has one turn, in an order that turns too. Checked after
each turn: as many thumbnails as photographs, each of the size that it must have. Shown are medians; the ratios are medians of the rounds' own.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from PIL import Image, ImageFilter

BACKGROUNDS = pathlib.Path("/usr/share/backgrounds/mate")
PHOTO_SIZE = (4000, 3000)
OURS = "multihull"


# What the competitor PIL does, in processes of its own: thumbnails.py --pil KIND WORKERS IN OUT SIDE SIGMA.


def pil_thumbnail(task):
    path, output, side, sigma = task
    with Image.open(path) as photo:
        if sigma > 0:
            photo = photo.filter(ImageFilter.GaussianBlur(sigma))
        else:
            photo.draft("RGB", (side, side))
        photo.thumbnail((side, side))
        photo.save(pathlib.Path(output) / path.name)


def pil_main(workers, photos, output, side, sigma):
    tasks = [(path, output, side, sigma) for path in sorted(pathlib.Path(photos).iterdir())]
    if workers == 1:
        for task in tasks:
            pil_thumbnail(task)
        return
    with multiprocessing.Pool(workers) as pool:
        pool.map(pil_thumbnail, tasks)


# The photographs.


def cut_photo(task):
    """One crop of one photograph, enlarged where it must be."""
    index, source, path = task
    chance = random.Random(index)
    with Image.open(source) as opened:
        photo = opened.convert("RGB")
    width = min(photo.width, photo.height * PHOTO_SIZE[0] / PHOTO_SIZE[1]) * chance.uniform(0.7, 1)
    height = width * PHOTO_SIZE[1] / PHOTO_SIZE[0]
    left = chance.uniform(0, photo.width - width)
    top = chance.uniform(0, photo.height - height)
    crop = photo.resize(PHOTO_SIZE, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
    crop.save(path, quality=92, icc_profile=None)


def make_photos(folder, count):
    sources = sorted(BACKGROUNDS.glob("nature/*.jpg")) + sorted(BACKGROUNDS.glob("abstract/*_*.jpg"))
    if not sources:
        sys.exit(f"There are no photographs in {BACKGROUNDS}: install mate-backgrounds.")
    folder.mkdir()
    tasks = [(i, sources[i % len(sources)], folder / f"photo{i:04}.jpg") for i in range(count)]
    with multiprocessing.Pool() as pool:
        pool.map(cut_photo, tasks)


# The competitors: name -> command, for one of the two works.


def pil(arguments, photos, output, workers, sigma):
    return [sys.executable, __file__, "--pil", str(workers), str(photos), str(output), str(arguments.size), str(sigma)]


def ours(arguments, photos, output, sigma):
    return [
        str(arguments.program),
        *("thumbnails", str(photos), "-o", str(output)),
        *("--size", str(arguments.size), "--jobs", str(arguments.workers), "--blur", str(sigma)),
    ]


def with_blur(arguments, photos, output):
    sigma = arguments.sigma
    return {
        OURS: ours(arguments, photos, output, sigma),
        "PIL": pil(arguments, photos, output, 1, sigma),
        f"PIL, Pool({arguments.workers})": pil(arguments, photos, output, arguments.workers, sigma),
    }


def without_blur(arguments, photos, output):
    files = [str(path) for path in sorted(photos.iterdir())]
    workers = str(arguments.workers)
    share = str(-(-len(files) // arguments.workers))
    vips = ["vipsthumbnail", "-s", f"{arguments.size}x{arguments.size}", "-o", f"{output}/%s.jpg"]

    def piped(*command):
        return ["sh", "-c", 'files=$1; shift; exec "$@" <"$files"', "sh", str(photos.parent / "files"), *command]

    (photos.parent / "files").write_text("".join(f"{name}\n" for name in files))
    return {
        OURS: ours(arguments, photos, output, 0),
        "vipsthumbnail": vips + files,
        f"xargs -P{workers}, a file each": piped("xargs", "-n1", f"-P{workers}", *vips),
        f"xargs -P{workers}, equal shares": piped("xargs", f"-n{share}", f"-P{workers}", *vips),
        f"parallel -j{workers}, a file each": piped("parallel", f"-j{workers}", *vips),
        f"parallel -j{workers}, equal shares": piped("parallel", f"-j{workers}", f"-n{share}", *vips),
        f"PIL draft, Pool({workers})": pil(arguments, photos, output, arguments.workers, 0),
    }


# The measuring.


def check(name, output, count, side):
    thumbnails = sorted(path for path in output.iterdir() if path.suffix == ".jpg")
    if len(thumbnails) != count:
        sys.exit(f"{name} made {len(thumbnails)} thumbnails of {count} photographs.")
    expected = (side, round(side * PHOTO_SIZE[1] / PHOTO_SIZE[0]))
    for path in thumbnails:
        with Image.open(path) as image:
            image.load()
            # Half a pixel is rounded up by some and down by others.
            if image.width != expected[0] or abs(image.height - expected[1]) > 1:
                sys.exit(f"{name} made {path.name} {image.width}x{image.height} instead of {expected}.")


def run_once(name, command, output, arguments):
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    begin = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        sys.exit(f"{name} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    check(name, output, arguments.images, arguments.size)
    return seconds


def measure(commands, output, arguments):
    samples = {name: [] for name in commands}
    names = list(commands)
    for turn in range(arguments.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            samples[name].append(run_once(name, commands[name], output, arguments))
    return samples


def show(title, samples):
    print(f"\n{title}\n")
    print("| | median | best | Multihull's time is |\n|---|---|---|---|")
    for name, seconds in samples.items():
        ratio = statistics.median(own / other for own, other in zip(samples[OURS], seconds))
        times = "" if name == OURS else f"{ratio:.2f} x"
        print(f"| {name} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} s | {times} |", flush=True)


def main():
    if sys.argv[1:2] == ["--pil"]:
        workers, photos, output, side, sigma = sys.argv[2:]
        pil_main(int(workers), photos, output, int(side), float(sigma))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the program multihull")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--images", type=int, default=40, metavar="N", help="photographs (40)")
    parser.add_argument("--size", type=int, default=50, metavar="PIXELS", help="longer side of the thumbnails (50)")
    parser.add_argument("--sigma", type=float, default=15, help="of the Gaussian blur of the whole photograph (15)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes of those who take more than one (2)")
    parser.add_argument("--only", choices=["blur", "plain"], help="one of the two works")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all samples there, in seconds")
    arguments = parser.parse_args()
    arguments.program = arguments.program.resolve()
    # Ended early, it still takes its folder along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    works = {
        "plain": (f"{arguments.images} thumbnails without blur", without_blur),
        "blur": (f"{arguments.images} thumbnails, blurred in full size with sigma {arguments.sigma:g}", with_blur),
    }
    with tempfile.TemporaryDirectory(prefix="multihull-thumbnails-") as name:
        folder = pathlib.Path(name)
        print(f"Making {arguments.images} photographs of {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]} ...", flush=True)
        make_photos(folder / "photos", arguments.images)
        total = sum(path.stat().st_size for path in (folder / "photos").iterdir())
        load = os.getloadavg()[0]
        print(f"{total / 1e6:.0f} MB; {os.cpu_count()} processors, load {load:.1f}.", flush=True)
        result = {}
        for work, (title, commands) in works.items():
            if arguments.only in (None, work):
                result[work] = measure(commands(arguments, folder / "photos", folder / "thumbnails"), folder / "thumbnails", arguments)
                show(title, result[work])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
