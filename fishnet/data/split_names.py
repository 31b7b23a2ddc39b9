"""Detection of sub-folders that are ready-made splits instead of classes, by their names."""

import re
from collections.abc import Sequence

KINDS = {  # what a split is called, without spaces, hyphens and the like
    "train": "trainval|training|train|trn",
    "val": "validation|validate|valid|val|development|dev",
    "test": "testing|test|tst|evaluation|eval|holdout|prediction|predict|pred",
}
# What stands around it: Test Set, train_images, train2017, 01_train, seg_train, my-train-data, trainA.
BEFORE = "[0-9]*(?:my|new|the|full|raw|seg|single|images?|imgs?|data|photos?|unseen|public|private)*"
BEHIND = (
    "(?:sets?|data|datasets?|images?|imgs?|photos?|pictures?|pics?|samples?|splits?|files?|folders?|new|raw|full"
    "|public|private)*"
)
SPLIT = {kind: re.compile(f"{BEFORE}(?:{words}){BEHIND}(?:[ab]|[0-9]+)?") for kind, words in KINDS.items()}
# Beside splits there may be what belongs to them.
BESIDE = (
    "annotations?|anns?|labels?|masks?|meta|metadata|bbox(?:es)?|boundingbox(?:es)?|segmentations?|imagesets?|docs?"
    "|documentation|readme|licenses?|scripts?|code|extra|unlabell?ed|samplesubmission|submissions?|csvs?|xmls?|json"
)
BELONGS = re.compile(f"{BEFORE}(?:{'|'.join(KINDS.values())})?{BEHIND}(?:{BESIDE})")  # labels, train_labels


def look_like_splits(names: Sequence[str]) -> dict[str, str]:
    """Finds the names that look like splits, if the names of sub-folders look like splits and not like classes.

    They do if two kinds of splits are among them, as `train` and `test`, and of the others at most one, or fewer than
    half of all names, do not belong to splits, as `annotations` does. They also do if one kind is among them and all
    others belong to splits. So `train` may be a class next to `bus` and `car`. What splits have in common apart from
    their kind does not matter: `reef_train` and `reef_test`.

    Args:
        names: of all sub-folders.

    Returns:
        The splits among them, and of which of `KINDS` they are; none where they look like classes.
    """
    kinds = {name: kind for name in names if (kind := _kind(name))}
    kinds |= _alike_but_for_kind(names)
    beside = [name for name in names if name not in kinds and BELONGS.fullmatch(_letters(name))]
    foreign = len(names) - len(kinds) - len(beside)
    if len(set(kinds.values())) > 1:
        splits = foreign <= 1 or 2 * foreign < len(names)
    else:
        splits = bool(kinds and beside) and foreign == 0
    if not splits:
        return {}
    return {name: kinds[name] for name in names if name in kinds}


def _kind(name: str) -> str | None:
    letters = _letters(name)
    return next((kind for kind, pattern in SPLIT.items() if pattern.fullmatch(letters)), None)


def _alike_but_for_kind(names: Sequence[str]) -> dict[str, str]:
    # Names that become equal when the word for the split is taken out of them.
    found: dict[str, dict[str, str]] = {}
    for name in names:
        words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
        for kind, pattern in KINDS.items():
            rest = [word for word in words if not re.fullmatch(pattern, word)]
            if len(rest) == len(words) - 1:
                found.setdefault(" ".join(rest), {})[name] = kind
    groups = [kinds for kinds in found.values() if len(set(kinds.values())) > 1]
    return {name: kind for kinds in groups for name, kind in kinds.items()}


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
