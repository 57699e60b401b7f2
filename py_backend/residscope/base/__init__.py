"""Small parts that know no word of the domain: texts, files, optional packages, arrays."""
