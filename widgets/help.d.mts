export function chapterNames(): Promise<string[]>;
export function forHelp(text: string): string;
export function chapterTexts(): Promise<Record<string, string>>;
