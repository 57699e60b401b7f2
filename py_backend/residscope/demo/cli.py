"""The `residscope` command: prepares the demo model and opens the example notebook in JupyterLab."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from residscope import __version__
from residscope.base.files import atomic_write
from residscope.demo.errors import DemoError
from residscope.demo.ioi import load, local_folder
from residscope.demo.model import cache_folder, demo_model_folder

NOTEBOOK = "example.ipynb"
OTHER_NOTEBOOKS = ("your-model.ipynb", "arena.ipynb")

# `-m` is not used, because it would import modules from the folder of notebooks first. That folder may hold files of
# other people.
_LAB = "import sys; sys.path[:] = filter(None, sys.path); from jupyterlab.labapp import main; sys.exit(main())"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Failures of known kinds are reported on stderr, without a traceback.

    Args:
        argv: The arguments. By default the arguments of the process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong arguments, 130 after an interrupt. If JupyterLab was
        started, the exit code of JupyterLab.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    lab_arguments = arguments[separator + 1 :]
    parser = _parser()
    try:
        args = parser.parse_args(arguments[:separator])
    except SystemExit as stop:  # argparse has printed the reason
        return int(stop.code or 0)
    if args.version:
        print(f"residscope {__version__}")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return _demo(args, lab_arguments)
    except DemoError as error:
        print(f"residscope: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"residscope: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("residscope: interrupted; no incomplete files were kept.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="residscope", description="See which components of a transformer contribute to an answer."
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="command")
    demo = commands.add_parser(
        "demo",
        help="open the example notebook in JupyterLab",
        description="Prepare the demo model and open the example notebook in JupyterLab. "
        "Arguments after -- are passed to JupyterLab.",
    )
    demo.add_argument("--model", metavar="NAME_OR_FOLDER", help="another model: a hub name such as gpt2, or a folder")
    demo.add_argument(
        "--folder",
        metavar="DIR",
        type=Path,
        default=Path("residscope-demo"),
        help="the folder of the notebook (default: ./residscope-demo)",
    )
    demo.add_argument("--no-browser", action="store_true", help="do not open a browser")
    demo.add_argument("--port", type=_port, metavar="N", help="the port of JupyterLab")
    demo.add_argument("--prepare-only", action="store_true", help="prepare the model and stop")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return int(text)


def _demo(args: argparse.Namespace, lab_arguments: list[str]) -> int:
    name: str | None = args.model or os.environ.get("RESIDSCOPE_DEMO_MODEL") or None
    if not args.prepare_only and importlib.util.find_spec("jupyterlab") is None:
        raise DemoError(f'JupyterLab is missing from this Python ({sys.executable}); run "pip install jupyterlab".')
    model = _prepared(name)
    if args.prepare_only:
        print(f"{model} is ready.")
        return 0
    folder = args.folder.expanduser().absolute()
    print(_place_notebook(folder))
    for other in OTHER_NOTEBOOKS:
        _place_notebook(folder, other)
    print(f"Other notebooks in this folder: {' and '.join(OTHER_NOTEBOOKS)}.")
    environment = dict(os.environ)
    if environment.get("RESIDSCOPE_CACHE"):  # JupyterLab starts in another folder, where a relative path would differ
        environment["RESIDSCOPE_CACHE"] = str(cache_folder())
    if name is not None:
        environment["RESIDSCOPE_DEMO_MODEL"] = model
    # The notebook is the default URL, not a file argument. So the URL that JupyterLab prints also opens the notebook.
    command = [sys.executable, "-c", _LAB, f"--LabApp.default_url=/lab/tree/{NOTEBOOK}"]
    command += ["--no-browser"] * args.no_browser
    command += [f"--ServerApp.port={args.port}"] * (args.port is not None)
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in lab_arguments:
        print("You are root: JupyterLab is started with --allow-root.")
        command.append("--allow-root")
    return _launch([*command, *lab_arguments], folder, environment)


def _prepared(name: str | None) -> str:
    """Make sure that the notebook can load the model. Return the name under which the notebook loads it."""
    if name is None:
        return str(demo_model_folder())
    folder = local_folder(name)
    if folder is not None:
        return str(folder)
    print(f"Loading {name} from the Hugging Face hub …", flush=True)
    load(name)  # loaded here, because a failure in the notebook would be a long traceback
    return name


def _place_notebook(folder: Path, name: str = NOTEBOOK) -> str:
    """Copy a notebook into `folder`, but keep a notebook that the user changed. Return a sentence on what was done."""
    if folder.exists() and not folder.is_dir():
        raise DemoError(f"{folder} is not a folder; name another one with --folder.")
    content = Path(__file__).with_name(name).read_bytes()
    notebook = folder / name
    try:
        if notebook.is_symlink() and not notebook.exists():
            raise DemoError(f"{notebook} is a broken link; remove it, or make a new copy elsewhere with --folder.")
        if notebook.exists():
            if notebook.read_bytes() == content:
                return f"The example notebook is {notebook}"
            return f"Kept your changed {notebook}; --folder makes a new copy elsewhere"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(notebook) as file:
            file.write(content)
    except OSError as error:
        raise DemoError(
            f"The example notebook could not be written to {folder} ({error.strerror}); "
            "name another folder with --folder."
        ) from error
    return f"Wrote the example notebook to {notebook}"


def _launch(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Start JupyterLab. On POSIX systems JupyterLab replaces this process, so that signals reach JupyterLab."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.chdir(folder)
        os.execve(command[0], command, environment)  # does not return
    process = subprocess.Popen(command, cwd=folder, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # JupyterLab received the Ctrl-C, too: wait until JupyterLab ends


if __name__ == "__main__":
    sys.exit(main())
