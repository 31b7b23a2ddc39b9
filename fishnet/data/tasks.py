"""Tasks by name, the only place in `fishnet.data` where names turn into objects."""

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fishnet.checks.arguments import check_flag, check_type
from fishnet.data.corruption_spec import FOLDER_PREFIX, Modifier, parse_modifiers, resolve_modifiers, split_name
from fishnet.data.task import Task
from fishnet.errors import UsageError, UserError
from fishnet.host.paths import expand_home
from fishnet.lookup import unknown_name


@dataclass(frozen=True)
class Request:
    """Request for a task, as a `Source` gets it."""

    path: str  # the part after `folder:`; empty for other tasks
    image_size: int  # pixels a side, one of the source's sizes
    data_dir: str | os.PathLike | None
    group_regex: str | None
    strict: bool


@dataclass(frozen=True)
class Source:
    """Source of a kind of task: its loader, its check before loading, and its image sizes."""

    load: Callable[[Request], Task]
    sizes: Sequence[int]  # pixels a side that may be asked for
    default_size: int
    check: Callable[[Request], None] = lambda request: None
    classes: Callable[[Request], Sequence[str]] | None = None  # their names without loading; None: it is not known


def load_task(
    name: str,
    image_size: int | None = None,
    data_dir: str | os.PathLike | None = None,
    group_regex: str | None = None,
    strict: bool = False,
) -> Task:
    """Loads a task into memory.

    Args:
        name: a key of `TASKS`, or `folder:PATH`; corruptions may follow a ?, see `fishnet.data.corruptions`.
        image_size: side in pixels; None for the task's default.
        data_dir: folder that holds the files of `mnist`; the other tasks need none.
        group_regex: for `folder:PATH`, what in a file name says which images must stay in one split.
        strict: for `folder:PATH`, refuse files that cannot be used instead of leaving them out with a note.

    Raises:
        UsageError: unknown task, a size that it does not come in, a `group_regex` that is wrong or not applicable, or
            corruptions that it cannot have.
        UserError: a file or folder is missing or damaged; the message names it.
    """
    return load_tasks([(name, image_size)], data_dir, group_regex, strict)[name, image_size]


def load_tasks(
    wanted: Iterable[tuple[str, int | None]],
    data_dir: str | os.PathLike | None = None,
    group_regex: str | None = None,
    strict: bool = False,
) -> dict[tuple[str, int | None], Task]:
    """Loads several tasks by name and image size; tasks that differ only in corruptions are read once.

    Args:
        wanted: names and image sizes, as for `load_task`.
        data_dir, group_regex, strict: as for `load_task`.

    Raises:
        UsageError, UserError: as `load_task`.
    """
    read: dict[tuple[str, int], Task] = {}
    tasks = {}
    for name, image_size in wanted:
        source, request, modifiers = _resolve(name, image_size, data_dir, group_regex, strict)
        key = split_name(name)[0], request.image_size
        if key not in read:
            read[key] = source.load(request)
        tasks[name, image_size] = _plant(read[key], key[0], modifiers) if modifiers else read[key]
    return tasks


def check_task(
    name: str,
    image_size: int | None = None,
    data_dir: str | os.PathLike | None = None,
    group_regex: str | None = None,
) -> tuple[str, ...] | None:
    """Checks the name of a task as `load_task` does, within a fraction of a second.

    No image is decoded and nothing is fetched; local MNIST files are compared with their checksums. Corruptions are
    checked as far as they do not depend on the numbers of images.

    Args:
        name, image_size, data_dir, group_regex: as for `load_task`.

    Returns:
        The names of the classes that the task will have; None where they are not known without loading it.
    """
    source, request, modifiers = _resolve(name, image_size, data_dir, group_regex, strict=False)
    source.check(request)
    if source.classes is None:
        return None
    classes = tuple(source.classes(request))
    settled = resolve_modifiers(modifiers, classes, request.image_size)
    return next((modifier.names for modifier in settled if modifier.key == "only"), classes)


def default_image_size(name: str) -> int:
    """Default side in pixels of a task's images; UsageError for an unknown task."""
    return _source(name)[0].default_size


def _source(name: str) -> tuple[Source, str, tuple[Modifier, ...]]:
    # What the task is, its name without modifiers, and these.
    base, text = split_name(name) if isinstance(name, str) else (name, None)
    key = "folder" if isinstance(name, str) and name.startswith(FOLDER_PREFIX) else base
    if not isinstance(name, str) or key not in TASKS or base == "folder":
        raise unknown_name("task", base, [f"{FOLDER_PREFIX}PATH" if key == "folder" else key for key in TASKS])
    return TASKS[key], base, () if text is None else parse_modifiers(text)


def _resolve(name, image_size, data_dir, group_regex, strict) -> tuple[Source, Request, tuple[Modifier, ...]]:
    source, base, modifiers = _source(name)
    folder = base.startswith(FOLDER_PREFIX)
    path = base.removeprefix(FOLDER_PREFIX) if folder else ""
    if folder and not path:
        raise UsageError("task 'folder:' lacks the folder: write folder:PATH")
    if group_regex is not None and not folder:
        raise UsageError(f"a group regex ({group_regex!r}) applies to folder:PATH only; {name} has its own split")
    check_type("data_dir", data_dir, (str, os.PathLike, type(None)), "the path of a folder, or None")
    check_type("group_regex", group_regex, (str, type(None)), "a regular expression as a text, or None")
    check_flag("strict", strict)
    try:
        if isinstance(image_size, bool):
            raise TypeError
        size = source.default_size if image_size is None else operator.index(image_size)
    except TypeError:
        raise UsageError(f"image size {image_size!r} is not a whole number of pixels") from None
    if size not in source.sizes:
        raise UsageError(f"image size {size} is not available for {name}: valid are {_sizes(source.sizes)}")
    if data_dir is not None and not os.path.isdir(expand_home(data_dir)):
        raise UserError(f"the data folder {data_dir} does not exist")
    return source, Request(path, size, data_dir, group_regex, strict), modifiers


def _sizes(sizes: Sequence[int]) -> str:
    return f"{sizes[0]} to {sizes[-1]}" if isinstance(sizes, range) else ", ".join(map(str, sizes))


# The modules are imported when they are needed: TFDS takes half a second, and each of them is a command of its own
# (python -m fishnet.data.reef), which must not have been imported with the package.


def _plant(task: Task, name: str, modifiers: tuple[Modifier, ...]) -> Task:
    from fishnet.data.corruptions import apply_corruptions

    return apply_corruptions(task, name, modifiers)


def _reef(request: Request) -> Task:
    from fishnet.data.reef import load_reef

    return load_reef(request.image_size)


def _reef_classes(request: Request) -> Sequence[str]:
    from fishnet.data.reef import reef_classes

    return reef_classes()


def _mnist(request: Request) -> Task:
    from fishnet.data.mnist import load_mnist

    return load_mnist(request.data_dir)


def _check_mnist(request: Request) -> None:
    from fishnet.data.mnist import check_mnist

    check_mnist(request.data_dir)


def _mnist_mini(request: Request) -> Task:
    from fishnet.data.mnist_mini import load_mnist_mini

    return load_mnist_mini()


def _digits(request: Request) -> Sequence[str]:
    from fishnet.data.mnist import CLASSES

    return CLASSES


def _folder(request: Request) -> Task:
    from fishnet.data.folder import load_folder

    return load_folder(request.path, request.image_size, request.group_regex, request.strict)


def _check_folder(request: Request) -> None:
    from fishnet.data.folder import check_folder

    check_folder(request.path, request.group_regex)


def _folder_classes(request: Request) -> Sequence[str]:
    from fishnet.data.folder import folder_classes

    return folder_classes(request.path)


def _synthetic(request: Request) -> Task:
    from fishnet.data.synthetic import load_synthetic

    return load_synthetic(request.image_size)


def _directions(request: Request) -> Sequence[str]:
    from fishnet.data.synthetic import CLASSES

    return CLASSES


TASKS: dict[str, Source] = {
    "reef": Source(_reef, (32, 64), 32, classes=_reef_classes),
    "mnist": Source(_mnist, (28,), 28, _check_mnist, _digits),
    "mnist-mini": Source(_mnist_mini, (28,), 28, classes=_digits),
    "folder": Source(_folder, range(8, 513), 32, _check_folder, _folder_classes),  # named as folder:PATH
    "synthetic": Source(_synthetic, range(8, 65), 16, classes=_directions),
}
