/** The keys of a record, with their type. The record must have no further keys, as a constant of this type has none. */
export function keysOf<K extends string>(record: Readonly<Partial<Record<K, unknown>>>): K[] {
  return Object.keys(record) as K[];
}
