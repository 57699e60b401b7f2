// Stores the last pictures of views in the extension, which keeps them across a reload of the window.
import { child, type Pictures, type Snapshot } from "@residscope/widgets";
import type { Host } from "./host";

export const picturesWith = (host: Host): Pictures => ({
  get: (path, name) =>
    new Promise((resolve) => {
      const answered = child(host.signal);
      host.onMessage(
        "recalled",
        (message) => {
          if (message.path !== path || message.name !== name) return;
          answered.abort();
          resolve(parsed(message.picture));
        },
        answered.signal,
      );
      host.post({ say: "recall", path, name });
    }),
  put: (path, name, picture: Snapshot) => host.post({ say: "keep", path, name, picture: JSON.stringify(picture) }),
});

function parsed(picture: string | null): unknown {
  try {
    return picture === null ? null : (JSON.parse(picture) as unknown);
  } catch {
    return null;
  }
}
