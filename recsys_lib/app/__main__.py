"""``python -m recsys_lib.app``: serve the application."""

from recsys_lib.app.serve import main

main()
