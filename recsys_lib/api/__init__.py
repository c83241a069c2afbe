"""The REST service: what `make api` starts.

``snapshot`` holds a run as requests see it, ``service`` replaces it when the files change, ``app`` has the addresses,
``schemas`` what goes in and out, ``problems`` the errors, ``server`` the start, the logs and the limits.
"""
