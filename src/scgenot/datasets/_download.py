"""Files of public repositories, at fixed commits: fetched once, checked, kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

CACHE = "SCGENOT_CACHE"
PREPARED = "SCGENOT_DATA"
# Where repositories are served from; tests put a server of their own here.
SERVER = "https://raw.githubusercontent.com"


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file at a commit of a public repository.

    Attributes
    ----------
    repository
        Owner and name.
    commit, path
        Which version of which file.
    sha256
        What it must be, byte by byte.
    """

    repository: str
    commit: str
    path: str
    sha256: str

    @property
    def url(self) -> str:
        """Where it is fetched from."""
        return f"{SERVER}/{self.repository}/{self.commit}/{self.path}"

    def fetch(self, progress_bar: bool = True) -> Path:
        """Return the path of the file, fetched if it is not there yet.

        Raises
        ------
        ConnectionError
            If it is not there and cannot be fetched.
        ValueError
            If what was fetched is not the file that was meant.
        """
        import pooch

        folder = Path(os.environ.get(CACHE) or pooch.os_cache("scgenot"))
        # The name tells versions apart, so that an old file is never taken for a new one.
        name = f"{self.sha256[:12]}-{Path(self.path).name}"
        downloader = pooch.HTTPDownloader(progressbar=progress_bar, timeout=60)
        try:
            return Path(
                pooch.retrieve(self.url, f"sha256:{self.sha256}", fname=name, path=folder, downloader=downloader)
            )
        except ValueError as error:
            if "hash" not in str(error):
                raise
            raise ValueError(
                f"{self.url} is not the file that was meant: its checksum is another one. It was not kept. Try again; if it stays so, "
                "something between here and there changes files."
            ) from error
        except OSError as error:
            # Connections fail in many ways, all of which `requests` derives from OSError.
            raise ConnectionError(
                f"{Path(self.path).name!r} is not in {str(folder)!r} and could not be fetched from {self.url} ({type(error).__name__}). "
                f"With a connection, call again. Without one, fetch it elsewhere and save it as {str(folder / name)!r}, or set "
                f"${PREPARED} to a folder with the prepared .h5ad files, ${CACHE} to one with the fetched ones."
            ) from error


def prepared_file(name: str) -> Path | None:
    """Return ``$SCGENOT_DATA/name.h5ad`` where there is one."""
    folder = os.environ.get(PREPARED)
    path = Path(folder) / f"{name}.h5ad" if folder else None
    return path if path is not None and path.is_file() else None


def principal_components(
    values: np.ndarray, count: int, solver: str = "auto"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, loadings and means in float32: scikit-learn's, in double precision, with seed 0."""
    from sklearn.decomposition import PCA

    fitted = PCA(count, svd_solver=solver, random_state=0)
    scores = fitted.fit_transform(np.asarray(values, np.float64))
    return tuple(one.astype(np.float32) for one in (scores, fitted.components_.T, fitted.mean_))
