// The tests run without what the oldest supported browsers (browsers.mjs) do not have, and the compiler does not report.

Object.defineProperty(AbortSignal, "any", { value: undefined }); // Firefox 124, Safari 17.4
