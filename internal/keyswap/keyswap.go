// Package keyswap has the change of one key of a replicated store, as all know it who
// have several made at once: the registry of vDisks and a mount's tree rename in
// one sequence of such.
package keyswap

// Swap gives a key a new value in place of the old one, which it must have. Nil is
// none: the key is absent, or goes.
type Swap struct{ Key, Old, New []byte }
