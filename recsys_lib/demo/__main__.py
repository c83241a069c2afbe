"""``python -m recsys_lib.demo``: serve the application."""

from recsys_lib.demo.serve import main

main()
