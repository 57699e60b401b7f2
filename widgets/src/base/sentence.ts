/** A sentence about the item under the pointer: plain text, and numbers that are shown in the colour of their sign. */
export type Sentence = (string | { stress: string })[];
