"""Modules that tests share. Import them by their full name (`from tests.support import tiny`), also in notebooks.

Models and caches: `tiny`, `padded`, `hostile`, `hooked` (`HookedTransformer`s), `saes`. Expected values from
independent code: `brute`, `score_oracle`. Measurements of each family: `cause_families`, `point_families`,
`score_families`. Long work: `gate`, `many_worker`. Selections, and what views request for them: `view_cases`. Replies:
`recorded`, `rows`. Code that is copied: `copied`. Shapes of tensors: `shapes`. Versions of a test run: `recorded_run`.

Kernels: `kernels`, `beside` (talks to a kernel like a sidebar), `as_vscode`, `nursery` (starts kernels
quickly), `demo_run`.

Browsers: `server` and `lab` (JupyterLab), `window` (VS Code), `sidebar`, `demo_panel`, `output_page`,
`hostile_notebooks`.
"""
