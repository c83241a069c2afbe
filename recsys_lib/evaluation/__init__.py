"""Metrics, the task that models are judged on, statistics, segments, new users."""
