/** `import("….ipynb")` gives the content of a notebook, which is JSON. A Python file is imported as text. */
module.exports = {
  module: {
    rules: [
      { test: /\.ipynb$/, type: "json" },
      { test: /\.py$/, type: "asset/source" },
    ],
  },
};
