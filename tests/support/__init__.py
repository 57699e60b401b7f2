"""What tests share. Import it by its full name, `from tests.support import tiny`, in notebooks and kernels, too.

Models and caches: `tiny`, `padded`, `hostile`, `hooked` (older releases). Expected values from independent code:
`brute`. Long work: `gate`, `many_worker`. Selections, and what views request for them: `view_cases`.

Kernels: `kernels`, `beside` (talks to a kernel like a sidebar), `as_vscode`, `nursery` (starts kernels quickly).

Browsers: `server` and `lab` (JupyterLab), `window` (VS Code), `sidebar`, `demo_panel`, `output_page`,
`hostile_notebooks`.
"""
