"""Pure decisions and the enumerations of the domain: the standard library alone, no I/O, no clock."""
