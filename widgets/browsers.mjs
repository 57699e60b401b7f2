// The oldest supported browsers, as esbuild names them. py_backend/docs/install.md has the same list.
// The styles decide: `:has()` needs Firefox 121, nested rules Chrome 120 and Safari 17.2. Without nested rules, esbuild
// writes a list of selectors as `:is()`, and a browser then compares it with every element of the page.
export const BROWSERS = ["es2022", "chrome120", "firefox121", "safari17.2"];
