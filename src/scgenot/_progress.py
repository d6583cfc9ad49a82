"""Signs of life: which stage a long computation is at, and what remains of it."""

from __future__ import annotations

from types import TracebackType

from tqdm.auto import tqdm


class Progress:
    """A bar that goes through stages; silent, and free, unless it is enabled.

    Use as a context, so that the bar is closed when the computation ends or fails::

        with Progress(enabled=True, name="Coupling") as progress:
            progress.stage("starts", total=10)
            progress.advance(violation=1e-3)

    Parameters
    ----------
    enabled
        Whether anything is shown.
    name
        What the bar is about: comes before the stage.
    """

    def __init__(self, enabled: bool = False, name: str = "Coupling") -> None:
        self._enabled, self._name = enabled, name
        self._bar: tqdm | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps; ``None`` if nobody knows how many these are."""
        if not self._enabled:
            return
        if self._bar is None:
            self._bar = tqdm(total=total, unit="step")
        else:
            self._bar.reset(total=total)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.set_description(f"{self._name}: {name}")

    def advance(self, steps: int = 1, **seen: float) -> None:
        """Say that `steps` of this stage are done; `seen` are numbers to show, such as the violation."""
        if self._bar is None:
            return
        if seen:
            self._bar.set_postfix({name: f"{value:.1e}" for name, value in seen.items()}, refresh=False)
        self._bar.update(steps)

    def close(self) -> None:
        """Take leave of the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


SILENT = Progress()
