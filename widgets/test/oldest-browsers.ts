// Removes what the oldest supported browsers (browsers.mjs) do not have. The compiler knows the language's version, but
// not which functions of the page a browser has.

Object.defineProperty(AbortSignal, "any", { value: undefined }); // Firefox 124, Safari 17.4
