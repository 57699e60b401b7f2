/** A notebook is JSON: `import("….ipynb")` gives its content. */
module.exports = { module: { rules: [{ test: /\.ipynb$/, type: "json" }] } };
