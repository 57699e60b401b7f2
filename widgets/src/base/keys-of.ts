/** The keys of a record, with their type. Only for constants, because other records may have keys beyond their type. */
export function keysOf<K extends string>(record: Readonly<Partial<Record<K, unknown>>>): K[] {
  return Object.keys(record) as K[];
}
