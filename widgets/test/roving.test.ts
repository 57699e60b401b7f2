import { expect, it } from "vitest";
import { closeElsewhere } from "../src/ui/popover";
import { stepAcross, stepAlong, TabStop } from "../src/ui/roving";
import { life } from "./lives";

it("moves the single stop of the Tab key", () => {
  const [one, other] = [document.createElement("i"), document.createElement("i")];
  const stop = new TabStop();
  stop.move(one);
  stop.move(other);
  expect([one.tabIndex, other.tabIndex]).toEqual([-1, 0]);
  stop.move(null);
  expect(other.tabIndex).toBe(-1);
});

it.each([
  ["ArrowLeft", 0],
  ["ArrowUp", 0],
  ["ArrowRight", 2],
  ["ArrowDown", 2],
  ["Home", 0],
  ["End", 2],
  ["PageUp", undefined],
  ["a", undefined],
])("moves along a row of three: %s from the middle", (key, to) => {
  expect(stepAlong(key, 1, 3)).toBe(to);
});

it("stays in the row", () => {
  expect([stepAlong("ArrowLeft", 0, 3), stepAlong("ArrowDown", 2, 3)]).toEqual([0, 2]);
});

it.each([
  ["ArrowUp", false, [0, 2]],
  ["ArrowDown", false, [2, 2]],
  ["ArrowLeft", false, [1, 1]],
  ["ArrowRight", false, [1, 3]],
  ["Home", false, [1, 0]],
  ["End", false, [1, 4]],
  ["Home", true, [0, 0]],
  ["End", true, [3, 4]],
  ["PageUp", false, [0, 2]],
  ["PageDown", false, [3, 2]],
] as const)("moves across a grid: %s, with Ctrl: %s", (key, ctrlKey, [row, column]) => {
  const event = new KeyboardEvent("keydown", { key, ctrlKey });
  expect(stepAcross(event, { row: 1, column: 2 }, 4, 5)).toEqual({ row, column });
});

it("moves by a page of rows, and ignores other keys", () => {
  const press = (key: string) =>
    stepAcross(new KeyboardEvent("keydown", { key }), { row: 9, column: 0 }, 20, 1, 4)?.row;
  expect([press("PageUp"), press("PageDown"), press("Enter")]).toEqual([5, 13, undefined]);
});

it("closes when the focus or a press goes elsewhere, but not when the window loses the focus", () => {
  const end = life();
  const [inside, outside] = [document.createElement("button"), document.createElement("button")];
  const parent = document.createElement("div");
  parent.append(inside);
  document.body.append(parent, outside);
  let [isOpen, closed] = [true, 0];
  closeElsewhere(
    parent,
    () => isOpen,
    () => (closed += 1),
    end.signal,
  );
  const leave = (to: EventTarget | null) =>
    inside.dispatchEvent(new FocusEvent("focusout", { relatedTarget: to, bubbles: true }));
  const press = (at: Element) => at.dispatchEvent(new Event("pointerdown", { bubbles: true, composed: true }));
  leave(null);
  leave(inside);
  press(inside);
  expect(closed).toBe(0);
  leave(outside);
  expect(closed).toBe(1);
  outside.addEventListener("pointerdown", (event) => event.stopPropagation());
  press(outside);
  expect(closed).toBe(2);
  isOpen = false;
  leave(outside);
  press(outside);
  isOpen = true;
  end.abort();
  press(outside);
  expect(closed).toBe(2);
});
