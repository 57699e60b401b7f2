// Does to a notebook's output page what the ipywidgets bundle of the Jupyter extension does: it sets JupyterLab's light
// colours, whatever VS Code's theme is, and a white background for widgets.
const LIGHT = `
:root {
  --jp-ui-font-color0: rgba(0, 0, 0, 1); --jp-ui-font-color1: rgba(0, 0, 0, 0.87);
  --jp-ui-font-color2: rgba(0, 0, 0, 0.54); --jp-ui-font-color3: rgba(0, 0, 0, 0.38);
  --jp-content-font-color1: rgba(0, 0, 0, 0.87); --jp-content-font-color2: rgba(0, 0, 0, 0.54);
  --jp-layout-color0: white; --jp-layout-color1: white; --jp-layout-color2: #eeeeee;
  --jp-layout-color3: #bdbdbd; --jp-layout-color4: #757575;
  --jp-border-color0: #bdbdbd; --jp-border-color1: #bdbdbd; --jp-border-color2: #e0e0e0; --jp-border-color3: #eeeeee;
  --jp-brand-color1: #1976d2; --jp-warn-color1: #f57c00; --jp-error-color1: #d32f2f; --jp-success-color1: #388e3c;
  --jp-ui-font-size1: 13px; --jp-ui-font-family: "Helvetica Neue", Helvetica, Arial, sans-serif;
  --jp-content-font-family: "Helvetica Neue", Helvetica, Arial, sans-serif;
  --jp-code-font-family: monospace; --jp-code-font-size: 13px;
}
.cell-output-ipywidget-background { background: white; }`;

/** Called when the page draws its first output. */
export function activate(): void {
  const style = document.createElement("style");
  style.textContent = LIGHT;
  document.head.append(style);
}
