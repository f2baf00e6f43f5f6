// Package chance is the randomness that code gets when it runs for real. A test gives
// the code a *rand.Rand with a seed instead.
package chance

import "math/rand/v2"

// Chance draws from the random source of the process. It has the methods of a
// *rand.Rand that the product calls, and unlike that is safe for concurrent use. The
// zero value is ready for use.
type Chance struct{}

// Float64 returns a number from 0 to 1, excluding 1.
func (Chance) Float64() float64 { return rand.Float64() }

// Shuffle puts n things in random order by swapping them.
func (Chance) Shuffle(n int, swap func(i, j int)) { rand.Shuffle(n, swap) }
