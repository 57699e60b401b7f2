/** A sentence for what is under the pointer: plain text, and figures to stress, in the colour of their sign. */
export type Sentence = (string | { stress: string })[];
