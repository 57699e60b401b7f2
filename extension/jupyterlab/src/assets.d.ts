declare module "*.svg" {
  const source: string;
  export default source;
}

declare module "@residscope/widgets/help.json" {
  const texts: Record<string, string>;
  export default texts;
}

declare module "*.ipynb" {
  const notebook: object;
  export default notebook;
}

/** A Python file, imported as text. */
declare module "*.py" {
  const text: string;
  export default text;
}

declare module "*/package.json" {
  export const version: string;
}
