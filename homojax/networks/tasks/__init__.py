"""Tasks that need detail to survive the layers: made from keys, or cut from given data."""

from homojax.networks.tasks.images import classification
from homojax.networks.tasks.made import copying, recall
from homojax.networks.tasks.task import Batch, Task
from homojax.networks.tasks.text import language

__all__ = ["Batch", "Task", "classification", "copying", "language", "recall"]
