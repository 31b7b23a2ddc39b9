"""Does this version train bit for bit what an earlier one does? Both run the same sweeps on this machine.

    python -m benchmarks.same_bits --base COMMIT
    python -m benchmarks.same_bits --base COMMIT --only mixed mlp --out FOLDER

Checks out the base commit, runs each case with it and with this working tree as processes of their own, and compares
every Parquet file that they wrote: each column bit for bit (NaN equals NaN), but for the seconds that training took and
for what RESPELLED lists. With --out the base's tables are kept, and a second call with the same folder trains only the
working tree's. Prints a line a case, with seconds of CPU time, and what differs; exit code 1 if anything
does.
"""

import argparse
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
TIMES = ("train_seconds",)  # columns that no two runs have in common

# Spelling of the base -> spelling now, for fields, values and columns. The cases below are spelled as in the base.
RESPELLED: dict[str, str] = {"weight_standardised": "weight_standardized"}

SMALL = "--task synthetic?few=rising:16 --image-size 8 --batch-size 32 --epochs 2"
CNN = f"{SMALL} --model cnn --widths 8-8"
MLP = f"{SMALL} --model mlp --widths 16-16"
LONG = MLP.replace("--epochs 2", "--epochs 5")
ACTIVATIONS = (
    "identity,relu,leaky_relu,elu,selu,gelu,silu,tanh,sigmoid,softplus,hard_swish,mish,relu6,exponential,squareplus,"
    "prelu,rrelu"
)
NORMS = "none,batch,layer,group,instance,rms,weight,weight_standardised"
INITIALIZERS = (
    "he_normal,he_uniform,glorot_normal,glorot_uniform,lecun_normal,lecun_uniform,truncated,uniform,normal,constant,"
    "orthogonal"
)
OPTIMIZERS = "sgd,momentum,nesterov,adagrad,rmsprop,adam,nadam,adamw,lamb,lion"
SCHEDULES = "constant,step,exponential,polynomial,cosine,warmup_cosine,onecycle,cyclic_triangular,cyclic_sine,plateau"
LOSSES = "cross_entropy,class_weighted,focal,class_balanced_focal,ldam,logit_adjusted,poly1,one_vs_rest,mse,hinge"
PROBES = (
    "gradients+gradient_cosine+updates+activations+sparsity+first_bad+dead_units+features+classes+noise_scale+sharpness"
    "+norm_gap"
)
# Every component that shares a program, and the numbers of the step, in 64 random combinations.
MIXED = (
    f"--sample activation={ACTIVATIONS} --sample norm={NORMS} --sample init={INITIALIZERS} "
    f"--sample optimizer={OPTIMIZERS} --sample schedule={SCHEDULES} --sample loss={LOSSES} "
    "--sample augment=none,flip,shift,flip_shift,strong --sample dropout=0.1..0.3 "
    "--sample dropout_kind=plain,spatial,alpha --sample clip=1,10 --sample clip_by=norm,value,adaptive "
    "--sample ema=0,0.9 --sample mixup=0,0.4 --sample cutmix=0,1 --sample cutout=0,4 --sample l1=0,0.001 "
    "--sample l2=0,0.01 --sample max_norm=0,0.5 --sample weight_decay=0,0.1 --sample label_smoothing=0,0.1 "
    "--sample class_sampling=0,0.5,1 --sample class_weighting=none,inverse,effective --sample reweight_from=0,0.5 "
    "--sample layer_rate=1,0.5 --sample warmup=0,0.2 --sample lr_min=0,0.001 --sample momentum=0.5,0.9 "
    "--sample init_gain=0.5,1 --sample init_bias=0,0.1 --sample lr=0.001..0.1:log --draws 64 --dropout-layers blocks"
)

# The same where there is no image, so neither statistics nor dropout of whole channels.
DENSE = MIXED.replace("instance,", "").replace("spatial,", "").replace("blocks", "dense")

# Name -> module and arguments, as the base spells them; {NAME} stands for the folder of an earlier case.
CASES: dict[str, str] = {
    "mixed": f"ablation {CNN} {MIXED} --seeds 1",
    "mixed_width_4": f"ablation {MLP} {DENSE} --seeds 1 --lane-width 4",
    "shared_batches": f"ablation {MLP} --axis norm=none,batch,layer,rms --axis optimizer=sgd,adam --seeds 2 "
    "--lane-width 4 --share-batches",
    "own_programs": f"ablation {MLP} --axis optimizer=muon,sam,schedule_free --seeds 2",
    "static_fields": f"ablation {CNN} --pool mean --norm-position post --ghost-batch 8 --axis ema=0,0.9 --seeds 2",
    "other_statistics": f"ablation {CNN} --axis eval_statistics=running,precise,batch --seeds 1",
    "bfloat16": f"train {CNN} --norm layer_channel --precision bfloat16 --input-norm batch --se-reduction 2 "
    "--init lsuv",
    "hard_classes": f"ablation {CNN} --hard-classes rising+falling --axis hard_augment=same,strong "
    "--axis hard_sampling=1,4 --seeds 1",
    "probes": f"ablation {CNN} --axis lr=0.05,1000000 --loss mse --probes {PROBES} --probe-every 3 --seeds 1",
    "pretrained": f"ablation {CNN} --axis pretrain=autoencoder,denoising,rotation,contrastive,gan --pretrain-epochs 1 "
    "--seeds 1",
    "transfer": f"ablation {CNN} --trunk {{pretrained}}:0 --axis freeze=none,trunk --seeds 2",
    "unfreeze": f"train {CNN} --trunk {{pretrained}}:0 --unfreeze 1 --unfreeze-rates 1-0.3",
    "halving": f"ablation {LONG} --axis lr=0.001,0.01,0.1,0.3 --halving 2 --seeds 2",
    "stopping": f"ablation {LONG} --axis lr=0.001,0.01,0.1,10 --patience 1 --median-stop --schedule plateau "
    "--plateau-patience 1 --seeds 2",
    "mlp": "train --task mnist-mini --model mlp --widths 32-16 --epochs 2 --dropout 0.2 --seeds 2",
    "cnn": "train --task reef?train=0.1 --model cnn --widths 8-16 --epochs 2",
    "resnet": "train --task reef?train=0.1 --model resnet --widths 8-16 --epochs 2 --stochastic-depth 0.3",
    "separable": "train --task reef?train=0.1 --model separable --widths 8-16 --epochs 2",
    "efficientnet": "train --task reef?train=0.1 --model efficientnet --widths 8-16 --epochs 2 --compound 0.5 "
    "--image-size 32",
    "hybrid": f"train {SMALL} --model hybrid --widths 8-16 --hard-classes rising+falling",
    "main": "ablation",
}


class CaseFailed(Exception):
    """A sweep that did not end well."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases and prints how they compare; returns 1 if any differs, 2 for a bad command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_bits", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", required=True, metavar="COMMIT", help="the version to compare with")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CASES, help=f"cases, of {' '.join(CASES)}")
    parser.add_argument("--out", type=Path, help="folder that keeps the tables; default: a temporary one")
    flags = parser.parse_args(argv)
    found = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--verify", "--quiet", f"{flags.base}^{{commit}}"],
        capture_output=True,
        text=True,
    )
    if found.returncode:
        parser.error(f"no commit {flags.base} here")
    commit = found.stdout.strip()
    names = [name for name in CASES if name in add_sources(flags.only or list(CASES))]
    with tempfile.TemporaryDirectory(prefix="same-bits-") as folder:
        scratch = Path(folder)
        unpack_commit(commit, scratch / "base")
        copy_working_tree(scratch / "now")
        out = (flags.out or scratch / "out").resolve()
        results = [compare_case(name, commit, scratch, out) for name in names]
    print(f"{sum(results)} of {len(results)} cases equal")
    return 0 if all(results) else 1


def add_sources(names: Sequence[str]) -> set[str]:
    """Names of some cases and of those whose folders they read."""
    wanted = set(names)
    for name in names:
        wanted |= set(re.findall(r"{(\w+)}", CASES[name]))
    return wanted


def unpack_commit(commit: str, folder: Path) -> None:
    """Writes the files of a commit into a new folder."""
    packed = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def copy_working_tree(folder: Path) -> None:
    """Copies the files that git does not ignore into a new folder, so that editing may go on meanwhile."""
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def compare_case(name: str, commit: str, scratch: Path, out: Path) -> bool:
    """Runs a case with both versions, prints a line and what differs, and returns whether nothing does.

    Args:
        name: of the case.
        commit: the base.
        scratch: holds the files of the two, `base` and `now`, and their caches.
        out: folder of results; those of the base are reused.
    """
    old, new = out / "base", out / "now"
    try:
        before = run_once(name, scratch / "base", old, commit, scratch / "base-cache")
        seconds = run(name, scratch / "now", new, scratch / "now-cache", RESPELLED)
    except CaseFailed as error:
        print(f"{name:15} {error}", flush=True)
        return False
    tables = read_tables(old / name), read_tables(new / name)
    wrong = differences(*tables)
    size = f"{len(tables[0])} tables, {sum(map(len, tables[0].values()))} rows"
    columns = sum(table.shape[1] for table in tables[0].values())
    verdict = "equal" if not wrong else f"{len(wrong)} differences"
    print(f"{name:15} {size}, {columns} columns  {verdict}  (base {before}, now {seconds:.0f} s)", flush=True)
    for line in wrong[:10]:
        print(f"    {line}", flush=True)
    return not wrong


def run_once(name: str, tree: Path, out: Path, commit: str, cache: Path) -> str:
    """Runs a case unless its finished results are there; returns its CPU time in words, or that it was kept."""
    marker = out / f"{name}.json"
    made_by = {"case": CASES[name], "commit": commit, "jax": version("jax"), "python": sys.version}
    if marker.exists() and json.loads(marker.read_text()) == made_by:
        return "kept"
    seconds = run(name, tree, out, cache, {})
    marker.write_text(json.dumps(made_by, indent=1))
    return f"{seconds:.0f} s"


def run(name: str, tree: Path, out: Path, cache: Path, respelled: Mapping[str, str]) -> float:
    """Runs a case with the code of a folder.

    Args:
        name: of the case.
        tree: folder of the code.
        out: folder of results; the case gets a new one in it.
        cache: the user's cache for it, which no other version may share.
        respelled: spelling in CASES -> spelling of this code.

    Returns:
        Seconds of CPU time.

    Raises:
        CaseFailed: its exit code was not 0; with the end of what it wrote.
    """
    shutil.rmtree(out / name, ignore_errors=True)
    module, *arguments = (
        respell(word, respelled).format(**{case: out / case for case in CASES}) for word in CASES[name].split()
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "FISHNET_"))}
    environment |= {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", f"experiments.{module}", *arguments, "--quiet", "--out", out / name]
    before = cpu_seconds()
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CaseFailed(f"failed in {tree}:\n{done.stderr[-3000:]}")
    return cpu_seconds() - before


def cpu_seconds() -> float:
    """CPU time of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def respell(text: str, respelled: Mapping[str, str]) -> str:
    """Replaces whole words of a text; flags, which have hyphens for underscores, are words too."""
    if text.startswith("--") and "=" not in text:
        field = text[2:].replace("-", "_")
        return "--" + respelled.get(field, field).replace("_", "-")
    return re.sub(r"\w+", lambda word: respelled.get(word[0], word[0]), text)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Every Parquet file of a folder, by name."""
    return {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


def differences(
    base: Mapping[str, pd.DataFrame], now: Mapping[str, pd.DataFrame], respelled: Mapping[str, str] = RESPELLED
) -> list[str]:
    """Differences, bit for bit, between the tables of two versions; a line a column.

    Args:
        base: name -> table.
        now: name -> table.
        respelled: spelling of the base -> spelling now, of columns and of words in text.
    """
    wrong = [f"{name}: only in {'base' if name in base else 'now'}" for name in sorted(base.keys() ^ now.keys())]
    wrong += [] if base else ["no table"]
    for name in base.keys() & now.keys():
        old = (
            base[name]
            .rename(columns=lambda column: respelled.get(column, column))
            .drop(columns=[*TIMES], errors="ignore")
        )
        new = now[name].drop(columns=[*TIMES], errors="ignore")
        if list(old) != list(new):
            wrong.append(f"{name}: columns {sorted(map(str, {*old} ^ {*new})) or 'in another order'}")
        if len(old) != len(new):
            wrong.append(f"{name}: {len(old)} rows in base, {len(new)} now")
            continue
        for column in [column for column in old if column in new]:
            wrong += different_cells(f"{name}.{column}", old[column], new[column], respelled)
    return wrong


def different_cells(name: str, old: pd.Series, new: pd.Series, respelled: Mapping[str, str]) -> list[str]:
    """A line that says where two columns of as many rows differ, or none."""
    if old.dtype != new.dtype:
        return [f"{name}: {old.dtype} in base, {new.dtype} now"]
    unequal = np.flatnonzero(bits(old, respelled) != bits(new, {}))
    if not len(unequal):
        return []
    i = unequal[0]
    return [f"{name}: {len(unequal)} of {len(old)} rows, first row {i}: {old.iloc[i]!r} in base, {new.iloc[i]!r} now"]


def bits(column: pd.Series, respelled: Mapping[str, str]) -> np.ndarray:
    """A column as values that are equal exactly if its own are bit for bit, any NaN being equal to any other."""
    missing = column.isna().to_numpy()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        whole = column.to_numpy().copy()
        whole[missing] = np.nan
        return whole.view(f"u{whole.itemsize}")
    values = [None if gone else value for value, gone in zip(column, missing, strict=True)]
    return np.array([respell(v, respelled) if isinstance(v, str) else v for v in values], object)


if __name__ == "__main__":
    sys.exit(main())
