"""Small pieces of the neural models: side features, nets, a trainer, and forward passes that need numpy alone.

Importing this package does not import torch; ``training``, ``rating_net`` and ``ranking_net`` do.
"""
