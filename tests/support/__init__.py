"""What tests share. Import it by its full name, `from tests.support import tiny`, in notebooks and kernels, too.

Models and caches: `tiny`, `padded`, `hostile`, `hooked` (older releases); the truth worked out by hand: `brute`;
long work: `gate`, `many_worker`; selections and what views request for them: `view_cases`.

Kernels: `kernels`, `beside` (as a sidebar talks to one), `as_vscode`, `nursery` (they start at once).

Browsers: `server` and `lab` (JupyterLab), `window` (VS Code), `sidebar`, `demo_panel`, `output_page`,
`hostile_notebooks`.
"""
