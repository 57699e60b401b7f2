// Waits longer than vitest's second, because other programs may use the processors.

import { vi } from "vitest";

const { waitFor } = vi;
vi.waitFor = (callback, options = 10_000) => waitFor(callback, options);
