"""``python -m recsys_lib.app``: serve the application."""

import sys

if sys.stdout.isatty():  # until the line with the address takes its place
    print("Starting the application ...", end="\r", flush=True)

from recsys_lib.app.serve import main

main()
