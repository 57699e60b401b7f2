export function chapterNames(): Promise<string[]>;
export function forHelp(text: string, names: readonly string[]): string;
export function chapterTexts(): Promise<Record<string, string>>;
