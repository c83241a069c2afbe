"""The REST service: what `make api` starts.

``service`` holds the run that answers and takes up a new champion, ``app`` the addresses, ``schemas`` what goes in and
out, ``problems`` what an error looks like, ``server`` the start, the logs and the limits. They need the extra ``api``
(``pip install -e '.[api]'``), so nothing is imported here.
"""
