// The oldest supported browsers, as esbuild names them. py_backend/docs/install.md has the same list.
// The styles decide: `subgrid` needs Chrome 117, `:has()` Firefox 121, the unit `lh` Safari 16.4.
export const BROWSERS = ["es2022", "chrome117", "firefox121", "safari16.4"];
