"""Labeled images: reef, mnist, mnist-mini, folder:PATH and synthetic, each as one `Task` in memory."""

from fishnet.data.options import DataOptions
from fishnet.data.task import Task, make_task
from fishnet.data.tasks import TASKS, check_task, default_image_size, load_task, load_tasks

__all__ = ["TASKS", "DataOptions", "Task", "check_task", "default_image_size", "load_task", "load_tasks", "make_task"]
