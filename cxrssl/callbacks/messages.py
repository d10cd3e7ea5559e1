"""Messages that leave progress bars whole."""

from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities import rank_zero_info

__all__ = ["tell"]


def tell(message: str) -> None:
    """Log a line on the first process; bars on the terminal step aside for it."""
    with Tqdm.external_write_mode():
        rank_zero_info(message)
