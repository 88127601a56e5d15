// Package protect stands in for the module of this name, which not every mirror of Go modules has.
// The one call that yggdrasil makes is OpenBSD's pledge(2), which does nothing on Linux.
package protect

// Pledge does nothing.
func Pledge(string) error { return nil }
