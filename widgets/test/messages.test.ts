// The messages that Python sends, as `npm run record` has stored them. The page's checks accept all of them, and drop
// no field.
import { parse } from "valibot";
import { expect, it } from "vitest";
import messages from "../../tests/texts/messages.json";
import { frameOf } from "../src/draw/plane";
import { unpacked } from "../src/views/attention/attention-data";
import { isReplyTo } from "../src/wire/is-reply-to";
import { Answer, Question } from "../src/wire/protocol.check.gen";
import { type Numbers, viewOf } from "./recorded";

it.each(messages.map((message, at) => [`${at} ${message.question.ask.kind}`, message] as const))(
  "are accepted: %s",
  (_, { question, answer }) => {
    const asked = parse(Question, question);
    const told = parse(Answer, answer);
    expect(asked).toEqual(question);
    expect(told).toEqual(answer);
    expect(told.id).toBe(asked.id);
    if (told.reply && told.reply.kind !== "working") expect(isReplyTo(asked.ask, told.reply)).toBe(true);
  },
);

it("the buffers have as many numbers as the reply declares", () => {
  for (const { answer, buffers } of messages) {
    const { reply } = parse(Answer, answer);
    const sizes = buffers.map((buffer) => Object.values(buffer as Numbers)[0]?.length);
    switch (reply?.kind) {
      case "attribute": {
        const rows = reply.components.kind.length;
        expect(sizes).toEqual(reply.per_prompt ? [rows, rows, rows * reply.prompts, reply.prompts] : [rows]);
        break;
      }
      case "neurons":
        expect(sizes).toEqual([reply.components.kind.length]);
        break;
      case "positions":
        expect(sizes).toEqual([reply.components.kind.length * reply.positions, reply.positions]);
        break;
      case "thumbnails":
        expect(sizes).toEqual([reply.limits.length * reply.side ** 2]);
        break;
      case "attention":
      case "blend": {
        const frame = frameOf(reply);
        const [rows, columns] = [frame.rows.stop - frame.rows.start, frame.columns.stop - frame.columns.start];
        const parts = reply.kind === "blend" ? [reply.part] : reply.parts;
        parts.forEach((part, i) => {
          const view = viewOf(buffers[i] as Numbers);
          if (part.what === "reads" || part.what === "brings") expect(sizes[i]).toBe(reply.positions);
          else expect(unpacked(part, view, frame).length).toBe(rows * columns);
        });
        break;
      }
    }
  }
});
