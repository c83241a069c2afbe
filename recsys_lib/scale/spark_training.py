"""Fit the models of the training notebooks on Spark; apart from ``spark``, which every worker imports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from recsys_lib.data.interactions import Interactions
from recsys_lib.models.als import ALS
from recsys_lib.models.base import Recommender
from recsys_lib.models.neighbours import ItemKNN
from recsys_lib.models.popularity import Popularity
from recsys_lib.run.training import Training
from recsys_lib.scale import spark

FITS: Mapping[type, Callable] = {Popularity: spark.popularity, ALS: spark.als, ItemKNN: spark.co_occurrence}


class SparkTraining(Training):
    """:class:`recsys_lib.run.training.Training` that fits on Spark what Spark can fit: popularity, ALS, item kNN."""

    def fit(self, model: Recommender, on: Interactions | None = None) -> float:
        """As of all trainings; the seconds are CPU seconds of this process and seconds of Spark's tasks."""
        if type(model) not in FITS:
            return super().fit(model, on)
        train, session = self.train if on is None else on, spark.session()
        start, before = time.process_time(), spark.core_seconds(session)
        given = {"train": train, "items": self.tables.items, "users": self.tables.users}
        if getattr(self, "_last", (None,))[0] is not train:  # the interactions used last are kept on Spark
            self._last = train, spark.frame_of(train.to_frame()).cache()
        FITS[type(model)](self._last[1], model, **given)
        return time.process_time() - start + spark.core_seconds(session) - before
