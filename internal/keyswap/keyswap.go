// Package keyswap is the change of one key of a replicated store. Several of them make
// one sequence: the registry of vDisks and a mount's tree are renamed together in one.
package keyswap

// Swap gives a key a new value in place of the old one, which it must have. A nil Old
// means that the key must be absent; a nil New deletes it.
type Swap struct{ Key, Old, New []byte }
