"""The neural models: nets and training need torch, which is not imported before a fit; serving is numpy."""
