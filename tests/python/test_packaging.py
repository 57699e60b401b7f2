"""What `import residscope` costs, and what comes with the package."""

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from importlib.resources import files


def test_import_is_light() -> None:
    script = """
        import sys, time
        start = time.perf_counter()
        import residscope
        print(f"{time.perf_counter() - start:.3f}")
        print(",".join(sorted({"torch", "transformer_lens", "transformers", "numpy", "IPython"} & set(sys.modules))))
    """
    command = [sys.executable, "-I", "-c", textwrap.dedent(script)]
    seconds, loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[:2]
    print(f"import residscope: {seconds} s")
    assert loaded == ""
    assert float(seconds) < 1  # 0.15 is the aim; a busy machine is no failure


def test_the_bundles_are_there() -> None:
    package = files("residscope")
    for path in ("static/panel.js", "static/panel.css", "labextension/package.json", "demo/example.ipynb", "py.typed"):
        assert package.joinpath(path).is_file(), f"{path} is missing: run `npm run setup`"


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="residscope")
    assert command.value == "residscope.demo.cli:main"
