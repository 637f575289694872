r"""The monitor in a training loop: when does it memorize, beyond chance?"""

from geomem.monitor.loggers import Logger
from geomem.monitor.monitor import MemorizationMonitor

__all__ = ["Logger", "MemorizationMonitor"]
