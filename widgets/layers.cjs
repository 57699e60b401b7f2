// The import rule of src/, for dependency-cruiser: a folder imports only from folders below it, and there are no
// cycles. Imports of types count, too.

/** From top to bottom. Folders in the same row do not import each other. */
const FLOORS = [
  ["entry"],
  ["hosts"],
  ["snapshot"],
  ["panel.ts"],
  ["views"],
  ["export"],
  ["ui"],
  ["state"],
  ["draw", "wire"],
  ["base"],
];

const above = FLOORS.map((_, floor) => FLOORS.slice(0, floor).flat());

/** @type {import("dependency-cruiser").IConfiguration} */
module.exports = {
  forbidden: [
    { name: "no-circles", severity: "error", from: {}, to: { circular: true } },
    ...FLOORS.flatMap((own, floor) =>
      own.map((name) => {
        const beside = own.filter((other) => other !== name);
        return {
          name: `${name}-imports-from-below`,
          severity: "error",
          from: { path: `^src/${name}(/|$)` },
          to: { path: `^src/(${[...above[floor], ...beside].join("|") || "$"})(/|$)` },
        };
      }),
    ),
    {
      name: "on-a-floor",
      severity: "error",
      from: {},
      to: { path: "^src/", pathNot: `^src/(${FLOORS.flat().join("|")})(/|$)` },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
  },
};
