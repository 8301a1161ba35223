"""What a long command says while it works: on standard error, so that standard output is the result alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from operation_agent.kit.clock import monotonic

Progress = Callable[[int, int | None], None]
"""Takes how much is done, and how much there is in all when that is known."""


class Console:
    """Lines, steps and progress bars. On a pipe the bars are left out and each step is one line with its seconds."""

    def __init__(self, *, quiet: bool = False):
        from rich.console import Console as Rich

        self._rich = Rich(stderr=True, quiet=quiet, highlight=False)

    def say(self, line: str) -> None:
        self._rich.print(line)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = monotonic()
        with self._rich.status(what):
            yield
        self._done(what, began)

    @contextmanager
    def progress(self, what: str) -> Iterator[Progress]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        began = monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=self._rich, transient=True, disable=not self._rich.is_terminal) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        self._done(what, began)

    def _done(self, what: str, began: float) -> None:
        self._rich.print(f"[green]✓[/green] {what} [dim]({monotonic() - began:.1f} s)[/dim]")
