/** The keys of a record, with their type. Use it only for constants: other records may have more keys than their type. */
export function keysOf<K extends string>(record: Readonly<Partial<Record<K, unknown>>>): K[] {
  return Object.keys(record) as K[];
}
