// A stand-alone page: unpacks its snapshot and mounts the views, without kernel and network. The bundle of the inline
// panel contains this, too, so that the package has the views only once.

import { type Snapshot, unpacked } from "../snapshot/snapshot";
import { mountSnapshot, type Words } from "../snapshot/snapshot-view";

async function unzipped(base64: string): Promise<Snapshot> {
  const stream = new Blob([unpacked(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return (await new Response(stream).json()) as Snapshot;
}

function wordsOf({ name, saved, lacks }: Snapshot): Words {
  const date = new Date(saved).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  const without = lacks.length > 0 ? ` Without ${lacks.join(", ")}.` : "";
  return {
    normal: `Saved from ${name} on ${date}; the values are of that time.${without}`,
    refusal: (name) => `This page was saved without ${name}; open the cache in a notebook to see it.`,
  };
}

export async function start(): Promise<void> {
  const place = document.getElementById("panel");
  const data = document.getElementById("data")?.textContent;
  if (!place || !data) return;
  const snapshot = await unzipped(data);
  place.replaceChildren();
  mountSnapshot(place, snapshot, wordsOf(snapshot), new AbortController().signal);
}
