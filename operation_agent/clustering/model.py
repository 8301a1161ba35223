"""A fitted clustering as a value: enough to say which cluster a customer is in, and nothing else.

numpy only: the event path assigns its batch with this, so no science library is imported for it. A row goes
through: fill what is missing, log1p of the column in its own unit where the fit found it skewed, standard scale,
clip, nearest centroid (Euclidean).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operation_agent.kit.errors import Rejected

Floats = NDArray[np.float64]
CHUNK = 65_536  # rows at a time: a million customers are assigned in the memory of this many
_VECTORS = ("fill", "unit", "mean", "scale")


@dataclass(frozen=True, eq=False)
class Model:
    """`fill`, `unit`, `logged`, `mean`, `scale`: one value per feature; `centroids`: k rows in scaled space.

    `fill` is in the feature's own unit (days, minor units, a count, a share). `unit` is what log1p counts in.
    """

    features: tuple[str, ...]
    fill: Floats
    unit: Floats
    logged: NDArray[np.bool_]
    mean: Floats
    scale: Floats
    clip: float
    centroids: Floats

    @property
    def k(self) -> int:
        return len(self.centroids)

    def matrix(self, columns: Mapping[str, Any]) -> Floats:
        """Rows by features, NaN where missing. A feature that `columns` does not have is missing for everyone."""
        rows = len(next(iter(columns.values()))) if columns else 0
        raw = np.full((rows, len(self.features)), np.nan)
        for place, name in enumerate(self.features):
            if name in columns:
                raw[:, place] = columns[name]
        return raw

    def scaled(self, raw: Floats) -> Floats:
        """The rows of `matrix` in the space of the centroids; a new array."""
        values = np.where(np.isnan(raw), self.fill, raw)
        if self.logged.any():
            # a value below zero (a clock set back, a correction) is as good as zero on a logged column
            part = np.maximum(values[:, self.logged], 0.0) / self.unit[self.logged]
            values[:, self.logged] = np.log1p(part)
        values -= self.mean
        values /= self.scale
        return np.clip(values, -self.clip, self.clip, out=values)

    def nearest(self, scaled: Floats) -> tuple[NDArray[np.int16], Floats]:
        """The nearest centroid of each row and the distance to it (in standard deviations); first one on a tie."""
        squares = (self.centroids**2).sum(axis=1) - 2.0 * (scaled @ self.centroids.T)
        numbers = squares.argmin(axis=1).astype(np.int16)
        gaps = scaled - self.centroids[numbers]
        return numbers, np.sqrt(np.einsum("ij,ij->i", gaps, gaps))

    def assign(self, columns: Mapping[str, Any]) -> tuple[NDArray[np.int16], Floats]:
        """Cluster number and distance of every row of `columns` (name -> array, NaN = missing)."""
        rows = len(next(iter(columns.values()))) if columns else 0
        if rows <= CHUNK:
            return self.nearest(self.scaled(self.matrix(columns)))
        numbers, distances = np.empty(rows, np.int16), np.empty(rows)
        for start in range(0, rows, CHUNK):
            part = slice(start, start + CHUNK)
            piece = self.matrix({name: columns[name][part] for name in self.features if name in columns})
            numbers[part], distances[part] = self.nearest(self.scaled(piece))
        return numbers, distances

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a jsonb column."""
        return {
            "features": list(self.features),
            **{name: [float(value) for value in getattr(self, name)] for name in _VECTORS},
            "logged": [bool(value) for value in self.logged],
            "clip": float(self.clip),
            "centroids": [[float(value) for value in row] for row in self.centroids],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Model:
        """Raises Rejected when the value is not a model this code wrote."""
        try:
            features = tuple(str(name) for name in value["features"])
            vectors = {name: np.asarray(value[name], np.float64) for name in _VECTORS}
            logged = np.asarray(value["logged"], np.bool_)
            centroids = np.asarray(value["centroids"], np.float64)
            clip = float(value["clip"])
        except (KeyError, TypeError, ValueError) as error:
            raise Rejected(f"not a clustering model: {error!r}", code="clustering_model") from None
        width = (len(features),)
        fits = all(vector.shape == width for vector in vectors.values()) and logged.shape == width
        if not fits or centroids.ndim != 2 or centroids.shape[1:] != width or not len(centroids):
            raise Rejected("not a clustering model: its parts differ in length", code="clustering_model")
        return cls(features=features, logged=logged, clip=clip, centroids=centroids, **vectors)
