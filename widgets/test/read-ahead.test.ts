import { describe, expect, it, vi } from "vitest";
import type { Question } from "../src/wire/protocol.gen";
import { all, open } from "./open";

const asked = (questions: Question[]): string[] =>
  questions.flatMap(({ ask }) => (ask.kind === "attention" ? [`L${ask.layer}H${ask.head}`] : []));
const point = (root: HTMLElement, head: string): boolean | undefined =>
  root.querySelector(`.rs-grid [data-head="${head}"]`)?.dispatchEvent(new Event("pointerover", { bubbles: true }));
const leave = (root: HTMLElement): boolean | undefined =>
  root.querySelector(".rs-grid")?.dispatchEvent(new Event("pointerleave"));
/** Waits longer than the pause before a view reads ahead. */
const rested = (): Promise<void> => new Promise((done) => setTimeout(done, 120));

describe("reading ahead", () => {
  it("requests the neighbours and the strongest heads one by one, once, and their pictures are there", async () => {
    const { root, model, settled } = await open();
    await settled();
    let [most, underway] = [0, 0];
    const send = model.send.bind(model);
    model.send = (question) => {
      most = Math.max(most, (underway += 1));
      send(question);
    };
    const emit = model.emit.bind(model);
    model.emit = (event, ...args) => {
      if (event === "msg:custom") underway -= 1;
      emit(event, ...args);
    };
    point(root, "L1H0");
    const values = all(root, ".rs-grid [data-head]").map((cell) =>
      (cell.getAttribute("aria-label") ?? "").replace("−", "-").split(" "),
    );
    const strongest = values
      .sort((a, b) => Math.abs(Number(b[1])) - Math.abs(Number(a[1])))
      .slice(0, 4)
      .map(([name = ""]) => name);
    const wanted = new Set(["L1H0", "L0H0", "L1H1", "L2H0", ...strongest]); // itself, neighbours, the strongest
    await vi.waitFor(() => expect(asked(model.asked)).toHaveLength(wanted.size));
    expect(new Set(asked(model.asked))).toEqual(wanted);
    expect(asked(model.asked)[0]).toBe("L1H0");
    expect(most).toBe(1);
    expect(root.dataset["state"]).toBe("ready"); // no view waits for them
    leave(root);
    point(root, "L1H1");
    expect(
      all(root, ".rs-card:not(.rs-placeholder)").map((card) => [
        card.getAttribute("aria-label"),
        card.classList.contains("rs-waiting"),
      ]),
    ).toEqual([["Attention L1H1", false]]);
    await settled();
    await rested();
    expect(asked(model.asked).slice(wanted.size, wanted.size + 1)).toEqual(["L1H1"]); // the head in view
    expect(
      asked(model.asked)
        .slice(wanted.size + 1)
        .filter((head) => wanted.has(head)),
    ).toEqual([]);
  });

  it("requests nothing while another reply is awaited, after the pointer left, or in a closed view", async () => {
    const { root, model, settled, close } = await open({}, undefined, () => 30);
    await settled();
    const clock = vi.spyOn(performance, "now").mockReturnValue(1); // the pointer rests on no head
    point(root, "L0H0");
    await vi.waitFor(() => expect(asked(model.asked)).toHaveLength(2), { interval: 5 });
    point(root, "L2H1"); // while the request for the first neighbour is in flight
    leave(root);
    clock.mockRestore();
    await settled();
    await rested();
    expect(asked(model.asked).slice(2)).toEqual(["L2H1"]);
    point(root, "L1H0");
    close();
    const before = model.asked.length;
    await rested();
    expect(model.asked).toHaveLength(before);
  });

  it("requests nothing while it is hidden", async () => {
    const { root, model, settled } = await open({ tab: "positions" });
    await settled();
    point(root, "L1H0");
    await rested();
    expect(asked(model.asked)).toEqual(["L1H0"]); // the request of the token strip, and none in advance
  });
});
