"""Which new cluster is which old one, so that a rule bound to a group keeps meaning that group.

Both clusterings are applied to today's customers: the old model says who would be in the old group now, the new
fit says who is in the new one. A lineage is handed on only when these are mostly the same people and the middle of
the group has hardly moved, measured in the old clustering's own space. Everything else starts a new lineage, and
the old one is reported as ended with what became of it: nothing is retargeted in silence. The numbers of clusters
carry no meaning here, and renumbering either side changes nothing but the numbers in the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import Floats

OVERLAP = 0.5
"""The Jaccard overlap of the members must be above this. Above one half, a cluster has at most one such partner on
either side, so pairs need no assignment problem - and the Hungarian method, which maximises the sum, could give up
such a pair for two worse ones (.33 + .33 > .51)."""
SHIFT = 0.75
"""Most that the middle may move, as a share of the old cluster's own radius (root mean square distance)."""
MOSTLY = 0.5
"""A cluster that gives, or gets, more than this share of its members is part of a split or a merger."""


@dataclass(frozen=True, slots=True)
class Heir:
    """What a new cluster is: `verdict` 'same' (takes `previous`'s lineage) or 'new'.

    `kind` says more: 'same', 'moved' (mostly the same people, but the group's middle is elsewhere), 'split',
    'merged', or 'new'. `previous` is the best old partner; `sources` all old clusters that mostly went into this one.
    """

    number: int
    verdict: str
    kind: str
    previous: int | None
    overlap: float
    shift: float | None
    sources: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """An old cluster without a successor: `fate` is 'split', 'merged', 'moved' or 'dissolved'; `into` new numbers."""

    previous: int
    fate: str
    into: tuple[int, ...]
    overlap: float


@dataclass(frozen=True, slots=True)
class Lineage:
    heirs: tuple[Heir, ...]
    ended: tuple[Ended, ...]


def first(k: int) -> Lineage:
    """There was no clustering before: every cluster starts a lineage."""
    return Lineage(tuple(Heir(number, "new", "new", None, 0.0, None) for number in range(k)), ())


def match(new: NDArray[Any], old: NDArray[Any], *, k_new: int, k_old: int, shifts: Floats | None = None) -> Lineage:
    """`new` and `old`: the cluster numbers of the same customers, row by row. `shifts` (k_new x k_old): see `shift`."""
    shared = np.zeros((k_new, k_old))
    np.add.at(shared, (np.asarray(new, np.intp), np.asarray(old, np.intp)), 1)
    jaccard = overlaps(shared)
    taken, given = shared / _at_least_one(shared.sum(axis=1))[:, None], shared / _at_least_one(shared.sum(axis=0))
    heirs = tuple(_heir(number, jaccard, taken, given, shifts) for number in range(k_new))
    kept = {heir.previous for heir in heirs if heir.verdict == "same"}
    return Lineage(heirs, tuple(_ended(j, heirs, jaccard, taken, given) for j in range(k_old) if j not in kept))


def overlaps(shared: Floats) -> Floats:
    """Jaccard of every pair from the table of shared members."""
    union = shared.sum(axis=1)[:, None] + shared.sum(axis=0)[None, :] - shared
    jaccard: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return jaccard


def shift(scaled: Floats, new: NDArray[Any], old: NDArray[Any], centroids: Floats, k_new: int) -> Floats:
    """How far each new cluster's middle is from each old centroid, in radii of that old cluster.

    `scaled`: today's customers in the old model's space; `centroids`: the old model's.
    """
    k_old, width = centroids.shape
    sums = np.stack([np.bincount(new, weights=scaled[:, at], minlength=k_new) for at in range(width)], axis=1)
    middles = sums / _at_least_one(np.bincount(new, minlength=k_new))[:, None]
    squares = ((scaled - centroids[old]) ** 2).sum(axis=1)
    radius = np.sqrt(
        np.bincount(old, weights=squares, minlength=k_old) / _at_least_one(np.bincount(old, minlength=k_old))
    )
    gaps = np.sqrt(((middles[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2))
    # a group of identical customers has no radius: one standard deviation stands for it
    shifts: Floats = gaps / np.where(radius > 1e-9, radius, 1.0)[None, :]
    return shifts


def _at_least_one(counts: NDArray[Any]) -> Floats:
    return np.maximum(counts.astype(np.float64), 1.0)


def _heir(
    number: int, jaccard: NDArray[Any], taken: NDArray[Any], given: NDArray[Any], shifts: NDArray[Any] | None
) -> Heir:
    best = int(jaccard[number].argmax())
    overlap = float(jaccard[number, best])
    moved = None if shifts is None else float(shifts[number, best])
    sources = _where(given[number] > MOSTLY)
    enough = overlap > OVERLAP
    if enough and (moved is None or moved <= SHIFT):
        return Heir(number, "same", "same", best, overlap, moved, sources)
    if enough:
        kind = "moved"
    elif len(sources) > 1:
        kind = "merged"
    elif taken[number].max(initial=0.0) > MOSTLY:
        best = int(taken[number].argmax())
        overlap, kind = float(jaccard[number, best]), "split"
        moved = None if shifts is None else float(shifts[number, best])
    else:
        kind = "new"
    related = overlap > 0
    return Heir(number, "new", kind, best if related else None, overlap, moved if related else None, sources)


def _ended(
    previous: int, heirs: Sequence[Heir], jaccard: NDArray[Any], taken: NDArray[Any], given: NDArray[Any]
) -> Ended:
    went = _where(given[:, previous] > MOSTLY)
    parts = _where(taken[:, previous] > MOSTLY)
    overlap = float(jaccard[:, previous].max(initial=0.0))
    if any(heir.kind == "moved" and heir.previous == previous for heir in heirs):
        return Ended(
            previous, "moved", tuple(h.number for h in heirs if h.kind == "moved" and h.previous == previous), overlap
        )
    if len(parts) > 1:
        return Ended(previous, "split", parts, overlap)
    if went:
        return Ended(previous, "merged", went, overlap)
    return Ended(previous, "dissolved", _where(given[:, previous] > 0.2), overlap)


def _where(mask: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(place) for place in np.flatnonzero(mask))
