"""README's two pictures, of what `make leaderboard` left: `make pictures` makes both anew.

The overlay is that of `tapct overlay`, with one slice; the page is looked at with Chromium (Debian's package
`chromium`). Nothing is retouched. Colours are never reduced to a palette: organs of like colour would become one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tapct.report.overlays import draw_overlays

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
LARGEST_BYTES = 250_000
PAGE_SIZE = (1100, 1560)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Writes docs/images/overlay.png and docs/images/leaderboard.png."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="results folder of `make leaderboard`, with its page in site/")
    results = parser.parse_args().results
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        of_experiment = results / "quickstart" / "tap-t-3d"
        overlay, _table = draw_overlays([of_experiment], Path(folder), ["chest"], slices=1)
        page = Path(folder) / "page.png"
        photograph(results / "site" / "index.html", page)
        for picture, name in ((overlay, "overlay.png"), (page, "leaderboard.png")):
            if picture.stat().st_size > LARGEST_BYTES:
                sys.exit(f"{name} has {picture.stat().st_size} bytes, and may have {LARGEST_BYTES}: show less of it")
            shutil.copyfile(picture, IMAGES / name)
            print(IMAGES / name)


def photograph(page: Path, picture: Path) -> None:
    """Writes what the top of a page looks like in a browser as a PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("no Chromium here, which shows the page: apt-get install chromium")
    size = ",".join(map(str, PAGE_SIZE))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    options += [f"--screenshot={picture}", f"--window-size={size}", f"--user-data-dir={picture.parent / 'profile'}"]
    subprocess.run([browser, *options, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    main()
