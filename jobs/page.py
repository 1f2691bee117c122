"""One HTML page of a tagged catalogue: a map by mood, a search, players, the words, what failed. No network needed.

python jobs/page.py tags/ --output page.html
python jobs/page.py s3://music/tags --output page.html --songs 5000
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.page.settings import PageSettings


def main(settings: PageSettings) -> int:
    """Write the page and say what is on it."""
    from mer_ray.page.composing import make_page

    page = make_page(settings)
    print(f"page: {page['summary']}")
    if not page["map"]:
        print(f"page: {page['mapnote']}")
    print(f"page: open {settings.output} in a browser")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, PageSettings))
