// Ends what each test mounted. This is a setup file, because vitest runs those for each test file: all files share one
// page and its modules, so an `afterEach` in a module that tests import would hold for the first file only.
import { afterEach } from "vitest";
import { endAll } from "./lives";

afterEach(() => {
  endAll();
  document.body.replaceChildren();
});
