// Entry of the stand-alone page: unpacks what the page holds and mounts the views over it. No kernel, no network.

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
    quiet: `Saved from ${name} on ${date}; figures as they were.${without}`,
    refusal: (what) => `This page was saved without ${what}; open it in a notebook to ask for it.`,
  };
}

async function start(): Promise<void> {
  const place = document.getElementById("panel");
  const data = document.getElementById("data")?.textContent;
  if (!place || !data) return;
  const snapshot = await unzipped(data);
  place.replaceChildren();
  mountSnapshot(place, snapshot, wordsOf(snapshot), new AbortController().signal);
}

void start();
