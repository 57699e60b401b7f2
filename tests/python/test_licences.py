"""Bundled packages come with their licences, in the Python package, exported pages and both extensions."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

import residscope
from tests.support import tiny

ROOT = Path(__file__).parents[2]
PACKAGE = Path(str(files("residscope")))
BUNDLES = {
    "panel": "widgets/src/entry/anywidget.ts",
    "page": "widgets/src/entry/standalone.ts",
    "library": "widgets/src/entry/index.ts",
    "VS Code": "extension/vscode/src/extension.ts",
    "VS Code's page": "extension/vscode/page/main.ts",
}
METAFILE = """
import { build } from "esbuild";
const { metafile } = await build({
  entryPoints: [process.argv[1]], bundle: true, write: false, outdir: "/out", metafile: true, logLevel: "error",
  platform: "node", external: ["vscode"], loader: { ".py": "text" }, alias: {
    "@residscope/widgets": "./widgets/src/entry/index.ts", "@residscope/widgets/node": "./widgets/src/entry/node.ts",
  },
});
const outputs = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.entries(inputs));
console.log(JSON.stringify(outputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path)));
"""


def others(bundle: str) -> dict[str, str]:
    """Return the packages in a bundle with their licences, found without the code of the build."""
    command = ["node", "--input-type=module", "-e", METAFILE, BUNDLES[bundle]]
    paths = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    found: dict[str, str] = {}
    for path in paths:
        match = re.match(r"(.*node_modules/((?:@[^/]+/)?[^/]+))/", path)
        if match:
            [licence] = (ROOT / match[1]).glob("LICEN[CS]E*")
            found[match[2]] = licence.read_text()
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def assert_named(said: str, packages: dict[str, str]) -> None:
    for name, licence in packages.items():
        assert re.search(rf"(?<![\w/@-]){re.escape(name)} \d", said), f"{name} is not named"
        assert words(licence) in words(said), f"the licence of {name} is missing"


OWN = {"Residscope": (ROOT / "LICENSE").read_text()}


@pytest.mark.parametrize("bundle", ["panel", "page"])
def test_the_package_holds_the_licences_of_what_its_bundles_hold(bundle):
    packages = others(bundle)
    assert {"lit-html", "d3-scale", "d3-array", "@preact/signals-core"} <= set(packages)
    assert_named((PACKAGE / "static" / "THIRD-PARTY-LICENSES.txt").read_text(), packages)
    assert words(OWN["Residscope"]) in words((PACKAGE / "static" / "LICENSE").read_text())


class Licences(HTMLParser):
    """Reads the text of the element `licences` of a page, as a browser does."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.inside, self.tags = "", False, []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = dict(attrs).get("id") == "licences"

    def handle_endtag(self, tag):  # noqa: ARG002
        self.inside = False

    def handle_data(self, data):
        self.text += data if self.inside else ""


def test_an_exported_page_has_the_licences_and_they_do_not_end_its_script(monkeypatch):
    panel = residscope.inspect(tiny.run(tiny.boot("llama"))[2], ("w5", "w9"), show=False)
    page = panel.to_html()
    read = Licences()
    read.feed(page)
    assert_named(read.text, others("page"))
    assert words(OWN["Residscope"]) in words(read.text)
    tags = read.tags
    assert len(page) - len(read.text) > 10 * len(read.text)  # the rest of the page was not read as licences

    hostile = "</pre></template><script>alert(1)</script>--><!-- ]]>"
    built = residscope.export.page._built
    monkeypatch.setattr("residscope.export.page._built", lambda name: hostile if "LICENSE" in name else built(name))
    read = Licences()
    read.feed(panel.to_html())
    assert read.tags == tags
    assert hostile in read.text
    panel.close()


def test_the_jupyterlab_extension_names_the_packages_in_its_bundle():
    path = PACKAGE / "labextension" / "static" / "third-party-licenses.json"
    packages = json.loads(path.read_text())["packages"]
    assert all(package["extractedText"].strip() and package["licenseId"] for package in packages)
    assert len({package["name"] for package in packages}) == len(packages)
    assert_named(
        "\n".join(f"{p['name']} {p['versionInfo']}\n{p['extractedText']}" for p in packages), others("library")
    )


def test_the_vs_code_extension_names_the_packages_in_its_bundle():
    subprocess.run(["node", "build.mjs"], cwd=ROOT / "extension" / "vscode", check=True, capture_output=True)
    said = (ROOT / "extension" / "vscode" / "dist" / "THIRD-PARTY-LICENSES.txt").read_text()
    assert_named(said, others("VS Code") | others("VS Code's page"))
    manifest = json.loads((ROOT / "extension" / "vscode" / "package.json").read_text())
    assert {"dist", "LICENSE"} <= set(manifest["files"])
    assert (ROOT / "extension" / "vscode" / "LICENSE").read_text() == OWN["Residscope"]


def test_a_package_without_a_licence_stops_the_build(tmp_path):
    folder = tmp_path / "node_modules" / "@some" / "package"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "@some/package", "version": "1.2.3"}')
    (folder / "index.js").write_text("export default 1;")
    script = """
        const { licencesOf } = await import(process.argv[1]);
        const inputs = { "node_modules/@some/package/index.js": { bytesInOutput: 9 } };
        licencesOf([{ outputs: { out: { inputs } } }], process.cwd());
    """
    command = ["node", "--input-type=module", "-e", script, str(ROOT / "widgets" / "licences.mjs")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "@some/package 1.2.3 is bundled, and has no licence text" in done.stderr
    (folder / "LICENCE.md").write_text("Do as you like.")
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
