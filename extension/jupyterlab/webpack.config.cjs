/** A notebook is JSON: `import("….ipynb")` gives its content. A Python file is a text. */
module.exports = {
  module: {
    rules: [
      { test: /\.ipynb$/, type: "json" },
      { test: /\.py$/, type: "asset/source" },
    ],
  },
};
