r"""The monitor in a training loop: when does it memorize, beyond chance?"""

from geomem.monitor.encoded import EncodedImages
from geomem.monitor.hooks import lightning_callback
from geomem.monitor.loggers import Logger
from geomem.monitor.monitor import MemorizationMonitor
from geomem.monitor.schedulers import scheduled_denoiser

__all__ = [
    "EncodedImages",
    "Logger",
    "MemorizationMonitor",
    "lightning_callback",
    "scheduled_denoiser",
]
