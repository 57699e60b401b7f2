declare module "*.svg" {
  const source: string;
  export default source;
}

declare module "*.ipynb" {
  const notebook: object;
  export default notebook;
}
