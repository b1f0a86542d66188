"""Set up a local cloud, deploy the real template.yaml to it, and play the story; exit 1 if a claim is false.

python -m tools.demo [--picture docs/demo.svg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.demo.act_one import ActOne
from tools.demo.act_three import ActThree
from tools.demo.act_two import ActTwo
from tools.demo.story import Story
from tools.errors import run
from tools.local import neighbours, stack
from tools.setup import LOCAL


def main() -> int:
    parser = argparse.ArgumentParser(description="Deploy the stack to a local cloud, and play the story.")
    parser.add_argument("--picture", type=Path, help="an SVG file to draw the terminal into")
    story = Story(parser.parse_args().picture)
    with stack.running(LOCAL / "demo") as deployed:
        ActOne(story, deployed).play()
        # example campaigns
        if neighbours.myfunnel_is_a_stand_in():  # it is told to be slow
            ActTwo(story, deployed).play()
            ActThree(story, deployed).play()
        # end of example
        story.end()
    return 1 if story.broken else 0


if __name__ == "__main__":
    run(main)
