"""The application: what `make demo` serves from 09_demo, and what that notebook builds.

``lab`` holds the data and models of a run, ``state`` the choices of one session as traits; ``views`` are functions of
these that return HTML and figures; ``widgets`` are the controls and views bound to them. ``serve`` starts Voilà,
``kernel`` and ``prepared`` keep its sessions small, and ``site`` writes what can live without a kernel.
"""
