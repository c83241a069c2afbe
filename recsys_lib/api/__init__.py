"""The REST service: what `make api` starts.

``serving`` holds the tables and models that answer and takes up new ones, ``app`` the addresses, ``schemas`` what goes
in and out, ``problems`` what is said when it does not work, ``guard`` who may ask and how often, ``observed`` request
ids, logs and measures; ``serve`` starts the server and ``client`` asks it. Only ``client`` works without the extra
``api`` (``pip install -e '.[api]'``), so nothing is imported here.
"""
